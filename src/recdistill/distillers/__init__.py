"""Distillation methods by name: ``recdistill.distillers.RRD(weight=1e-3)``."""

from recdistill.distillers.adarec import AdaRec
from recdistill.distillers.base import Context, Distiller, Objective
from recdistill.distillers.bert_emd import BERTEMD
from recdistill.distillers.cd import CD
from recdistill.distillers.cpd import CPD
from recdistill.distillers.dcd import DCD
from recdistill.distillers.de import DE
from recdistill.distillers.fitnet import FitNet
from recdistill.distillers.freqd import FreqD
from recdistill.distillers.ftd import FTD
from recdistill.distillers.hetcomp import HetComp
from recdistill.distillers.hint import Hint
from recdistill.distillers.htd import HTD
from recdistill.distillers.ir_rrd import IRRRD
from recdistill.distillers.kd import KD
from recdistill.distillers.layer_map import LayerMap
from recdistill.distillers.logit_kd import LogitKD
from recdistill.distillers.nkd import NKD
from recdistill.distillers.rce_kd import RCEKD
from recdistill.distillers.rd import RD
from recdistill.distillers.rrd import RRD
from recdistill.distillers.sld import SLD
from recdistill.distillers.soft_labels import SoftLabels
from recdistill.distillers.unkd import UnKD
from recdistill.distillers.vkd import VkD

__all__ = [
    "BERTEMD",
    "CD",
    "CPD",
    "DCD",
    "DE",
    "FTD",
    "HTD",
    "IRRRD",
    "KD",
    "NKD",
    "RCEKD",
    "RD",
    "RRD",
    "SLD",
    "AdaRec",
    "Context",
    "Distiller",
    "FitNet",
    "FreqD",
    "HetComp",
    "Hint",
    "LayerMap",
    "LogitKD",
    "Objective",
    "SoftLabels",
    "UnKD",
    "VkD",
]
