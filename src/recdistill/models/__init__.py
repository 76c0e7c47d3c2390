"""Models by name: ``recdistill.models.BPR(dim=20)``."""

from recdistill.models.base import Batch, Recommender, ScoreVectors, State
from recdistill.models.bert4rec import BERT4Rec
from recdistill.models.bpr import BPR
from recdistill.models.cellnet import CellNet
from recdistill.models.cml import CML
from recdistill.models.ease import EASE
from recdistill.models.gru4rec import GRU4Rec
from recdistill.models.hstu import HSTU
from recdistill.models.itemknn import ItemKNN
from recdistill.models.itemvae import ItemVAE
from recdistill.models.lightgcn import LightGCN
from recdistill.models.multvae import MultVAE
from recdistill.models.neumf import NeuMF
from recdistill.models.nextitnet import NextItNet
from recdistill.models.popularity import Popularity
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import SequenceBatch
from recdistill.models.sequence_state import SequenceState
from recdistill.models.sequential import SequenceModel
from recdistill.models.simplex import SimpleX
from recdistill.models.xsimgcl import XSimGCL

__all__ = [
    "BPR",
    "CML",
    "EASE",
    "HSTU",
    "BERT4Rec",
    "Batch",
    "CellNet",
    "GRU4Rec",
    "ItemKNN",
    "ItemVAE",
    "LightGCN",
    "MultVAE",
    "NeuMF",
    "NextItNet",
    "Popularity",
    "Recommender",
    "SASRec",
    "ScoreVectors",
    "SequenceBatch",
    "SequenceModel",
    "SequenceState",
    "SimpleX",
    "State",
    "XSimGCL",
]
