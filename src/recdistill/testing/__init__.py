"""Conformance kits: what every model and every distillation method must do, shipped so that you can test your own.

    from recdistill.testing import check_distiller, check_model, check_sequence_model

    def test_conforms():
        check_model(lambda: MyModel(dim=4))
        check_distiller(lambda: MyMethod(num_interesting=3, depth=8))

A failed check raises AssertionError and says which promise was broken.
"""

from recdistill.testing.distillers import check_distiller, check_sequence_distiller
from recdistill.testing.models import check_model
from recdistill.testing.sequences import check_sequence_model
from recdistill.testing.tiny import (
    CPU,
    batch_of,
    built,
    largest_tensor,
    make_batches,
    tiny_interactions,
    tiny_sequences,
)

__all__ = [
    "CPU",
    "batch_of",
    "built",
    "check_distiller",
    "check_model",
    "check_sequence_distiller",
    "check_sequence_model",
    "largest_tensor",
    "make_batches",
    "tiny_interactions",
    "tiny_sequences",
]
