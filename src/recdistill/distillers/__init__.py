"""Distillation methods by name: ``recdistill.distillers.RRD(weight=1e-3)``."""

from recdistill.distillers.base import Context, Distiller, Objective
from recdistill.distillers.cd import CD
from recdistill.distillers.dcd import DCD
from recdistill.distillers.de import DE
from recdistill.distillers.ir_rrd import IRRRD
from recdistill.distillers.kd import KD
from recdistill.distillers.rce_kd import RCEKD
from recdistill.distillers.rd import RD
from recdistill.distillers.rrd import RRD
from recdistill.distillers.sld import SLD
from recdistill.distillers.soft_labels import SoftLabels
from recdistill.distillers.unkd import UnKD

__all__ = [
    "CD",
    "DCD",
    "DE",
    "IRRRD",
    "KD",
    "RCEKD",
    "RD",
    "RRD",
    "SLD",
    "Context",
    "Distiller",
    "Objective",
    "SoftLabels",
    "UnKD",
]
