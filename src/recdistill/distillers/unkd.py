"""UnKD: the teacher's order among items of about equal popularity, so that its popularity bias is not learnt.

Chen et al., Unbiased Knowledge Distillation for Recommendation, WSDM 2023.

    L = mean over the batch's users u of  mean_{(i, j)∈S_u} softplus(−(s_ui − s_uj))

Items are cut into groups of about equal share of the train interactions. In group g the teacher's top unobserved items
are ranked k = 1, 2, …; n_g pairs of distinct positions are drawn with weights exp(−k / T) each, i at the smaller.

    groups: by train count, descending; one closes before its count would exceed 1/G of all; a last group of less than
        half of that joins the one before. Their number can differ from G.
    n_g: n · c_g^λ / Σ_h c_h^λ, rounded to sum n (largest remainders, then first groups);
        c_g = max(0.1, m_g / Σ_h m_h to two decimals), m_g = max_h ā_h + min_h ā_h − ā_g, ā_g mean count of g's items

s: the student's scores; n ``num_pairs``; λ ``exponent``, 0 shares pairs evenly; T ``temperature``. A tied pair is drawn
again alone, where the authors draw all pairs of the group again: the law is the same. Users with fewer than two listed
items in a group have no pairs there, and the mean is over those that they have.

The authors' weight is on a mean over rows and pairs: the same here. A published weight λ on a sum over a batch of B
rows is ``weight = λ`` where a user counts once a row, and ``λ · n / B`` where the n unique users count once.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.cd import geometric_positions
from recdistill.errors import OptionError
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State
from recdistill.models.ranking import top_items


class UnKD(Distiller):
    """Unbiased Knowledge Distillation.

    Lists within groups come from the teacher's scores of all items, once, in blocks.

    Args:
        weight: of this term in the objective, above 0 (authors' code: 1).
        num_groups: G, groups aimed at, at least 1 (paper: best with 4 or 5; authors' code: 2).
        num_pairs: n, pairs of each user, at least 1 (authors' code: 30).
        exponent: λ, of a group's share of the pairs, at least 0; above 0 unpopular groups get more, though no group's
            share counts as less than .1, so that it does nothing with more than about ten groups (authors' code: 0).
        temperature: T, of the draw of positions, in list positions, above 0 (authors' code: 20).
        depth: of each group's list, at least 2 (authors' code: 1,000; with T = 20 the first 200 have all but 5e-5
            of the weight).
        resample_every: epochs between two draws, at least 1 (authors' code: 1).
    """

    needs = frozenset({"scores"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        num_groups: Annotated[int, Field(ge=1)] = 4,
        num_pairs: Annotated[int, Field(ge=1)] = 30,
        exponent: Annotated[float, Field(ge=0)] = 0.0,
        temperature: Annotated[float, Field(gt=0)] = 20.0,
        depth: Annotated[int, Field(ge=2)] = 200,
        resample_every: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_groups = num_groups
        self.num_pairs = num_pairs
        self.exponent = exponent
        self.temperature = temperature
        self.depth = depth
        self.resample_every = resample_every

    def setup(self, context: Context) -> None:
        train = context.interactions
        everyone = torch.arange(train.num_users)
        drawn = torch.full((train.num_users, 2 * self.num_pairs), -1, dtype=torch.int32)
        self.register_buffer("drawn", drawn)
        groups = equal_groups(train.item_counts, self.num_groups)
        self._pairs = pairs_per_group(train.item_counts, groups, self.num_pairs, self.exponent)
        if not any(self._pairs):
            raise OptionError(
                f"{context.name}.num_groups: each of the {len(groups)} groups has one item, and so no pair",
                "choose fewer groups",
            )
        without = sum(count == 0 for count in self._pairs)
        if without:
            context.note(
                f"{context.name}: {without} of {len(groups)} groups have none of the {self.num_pairs} pairs of a user"
                f" (groups of one item have none): fewer {context.name}.num_groups or more {context.name}.num_pairs"
            )
        self._lists = [
            top_items(
                context.knowledge,
                everyone,
                min(self.depth, len(items)),
                [train.unlisted],
                candidates=items.sort().values,
            )[0].int()
            for items in groups
        ]

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.resample_every:
            return
        drawn = self.get_buffer("drawn")
        start = 0
        for ids, count in zip(self._lists, self._pairs, strict=True):
            positions = distinct_pairs((ids >= 0).sum(dim=1), count, self.temperature, context.generator)
            for side, first in enumerate((start, self.num_pairs + start)):
                at = positions[side]  # (U, n_g)
                items = ids.gather(1, at.clamp(min=0)).masked_fill(at < 0, -1)
                drawn[:, first : first + count] = items.to(drawn.device)
            start += count

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("drawn")[batch.users].long()  # (b, 2n)
        better, worse = list_scores(student, batch.users, items).chunk(2, dim=1)
        return pair_loss(better - worse, items[:, : self.num_pairs] >= 0)


def pair_loss(differences: Tensor, present: Tensor) -> Tensor:
    """Mean over users of the mean of softplus(−difference) over the pairs that are there, both ``(b, n)``."""
    terms = F.softplus(-differences).masked_fill(~present, 0.0)
    return (terms.sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


def equal_groups(item_counts: Tensor, num_groups: int) -> list[Tensor]:
    """Cut the items, most popular first (equal counts by index), into groups of at most 1/G of all interactions.

    An item of more than that is a group of its own.

    Args:
        item_counts: (I,) int64, train interactions of each item.
        num_groups: G, at least 1.

    Returns:
        the items of each group, int64.
    """
    order = item_counts.argsort(descending=True, stable=True)
    reached = item_counts[order].cumsum(0) * num_groups  # in units of 1/G, so that all is exact
    cap = int(item_counts.sum())
    groups: list[Tensor] = []
    start, before = 0, 0
    while start < len(order):
        end = int(torch.searchsorted(reached, torch.tensor(before + cap), right=True))
        end = max(end, start + 1)
        groups.append(order[start:end])
        start, last = end, int(reached[end - 1]) - before
        before += last
        if start == len(order) and len(groups) > 1 and 2 * last < cap:
            groups[-2:] = [torch.cat(groups[-2:])]
    return groups


def pairs_per_group(item_counts: Tensor, groups: list[Tensor], num_pairs: int, exponent: float) -> list[int]:
    """n_g: how many of a user's pairs come from each group; none from a group of one item, which has no pair."""
    means = torch.stack([item_counts[items].double().mean() for items in groups])
    mirrored = means.max() + means.min() - means
    base = (mirrored / mirrored.sum()).nan_to_num(0.0).round(decimals=2).clamp(min=0.1)
    several = torch.tensor([len(items) > 1 for items in groups])
    weights = (exponent * base.log()).masked_fill(~several, -torch.inf)
    shares = num_pairs * torch.softmax(weights, dim=0).nan_to_num(0.0)
    counts = (shares + 1e-9).floor()
    left = num_pairs - int(counts.sum()) if bool(several.any()) else 0
    counts[(shares - counts).round(decimals=9).argsort(descending=True, stable=True)[:left]] += 1
    return [int(count) for count in counts]


def distinct_pairs(
    lengths: Tensor, n: int, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pairs of positions drawn with weights exp(−k / temperature) each, given that they differ.

    The smaller position and the gap to the other are independent but for the list's end: proportional to
    exp(−2k / temperature) and exp(−gap / temperature). More than half of such draws end within the list; the
    others are drawn again.

    Args:
        lengths: (b,) int64, of each list.
        n: pairs a list, at least 0.
        temperature: in positions, above 0.
        generator: a CPU generator.

    Returns:
        the smaller positions and the larger ones (from 0), each (b, n) int64; −1 for lists of fewer than two.
    """
    last = (lengths - 1)[:, None].expand(len(lengths), n).reshape(-1)
    better, worse = torch.full_like(last, -1), torch.full_like(last, -1)
    pending = torch.nonzero(last > 0)[:, 0]
    while len(pending) > 0:
        end = last[pending]
        uniform = torch.rand(2, len(pending), dtype=torch.float64, generator=generator)
        small = geometric_positions(end, temperature / 2, uniform[0])
        large = small + 1 + geometric_positions(end, temperature, uniform[1])
        inside = large <= end
        better[pending[inside]], worse[pending[inside]] = small[inside], large[inside]
        pending = pending[~inside]
    return better.view(len(lengths), n), worse.view(len(lengths), n)
