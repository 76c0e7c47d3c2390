"""The few kernels that everything fast rests on, each with a plain-torch twin ``<name>_reference``.

The kernels run on CPU tensors of float32 (or of integers); the twins run otherwise, on a GPU and in float64.
"""

from recdistill.ops.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_reference
from recdistill.ops.gradients import Gradient
from recdistill.ops.lists import listed, places, places_reference
from recdistill.ops.log_sum_exp import log_sum_exp_blocks, log_sum_exp_except, log_sum_exp_except_reference
from recdistill.ops.optim import (
    adam_all,
    adam_all_reference,
    adam_touched,
    adam_touched_reference,
    rowwise_adagrad,
    rowwise_adagrad_reference,
)
from recdistill.ops.plackett_luce import plackett_luce, plackett_luce_reference
from recdistill.ops.precision import full_precision
from recdistill.ops.rectified import rectified_at, rectified_at_reference
from recdistill.ops.rows import (
    Rows,
    contains,
    contains_reference,
    owners_of,
    positions_among,
    unique_inverse,
    unique_inverse_reference,
)
from recdistill.ops.sampling import (
    draw_unobserved,
    draw_unobserved_reference,
    sample_positions,
    sample_positions_reference,
    sample_weighted,
    sample_weighted_reference,
)
from recdistill.ops.scores import scores_at, scores_at_reference
from recdistill.ops.topk import (
    ranked_at,
    ranked_at_reference,
    top_k,
    top_k_dense,
    top_k_dense_reference,
    top_k_reference,
)

__all__ = [
    "Gradient",
    "Rows",
    "adam_all",
    "adam_all_reference",
    "adam_touched",
    "adam_touched_reference",
    "contains",
    "contains_reference",
    "draw_unobserved",
    "draw_unobserved_reference",
    "full_precision",
    "listed",
    "log_sum_exp_blocks",
    "log_sum_exp_except",
    "log_sum_exp_except_reference",
    "owners_of",
    "places",
    "places_reference",
    "plackett_luce",
    "plackett_luce_reference",
    "positions_among",
    "ranked_at",
    "ranked_at_reference",
    "rectified_at",
    "rectified_at_reference",
    "rowwise_adagrad",
    "rowwise_adagrad_reference",
    "sample_positions",
    "sample_positions_reference",
    "sample_weighted",
    "sample_weighted_reference",
    "scores_at",
    "scores_at_reference",
    "softmax_cross_entropy",
    "softmax_cross_entropy_reference",
    "top_k",
    "top_k_dense",
    "top_k_dense_reference",
    "top_k_reference",
    "unique_inverse",
    "unique_inverse_reference",
]
