"""A variational autoencoder over sparse rows: what MultVAE (rows are users) and ItemVAE (rows are items) share.

    x̃ = dropout(x / ‖x‖),  [μ ; log σ²] = A tanh(W x̃ + a) + a',  z = μ + σ ⊙ ε,  h = tanh(V z + v),  s = Q h + b

x: the binary row, ε ~ N(0, 1) in training and 0 else. W x̃ is the sum of the columns of W that the row names, so no row
is ever dense. Q h + b is made one tile of rows at a time in the loss (:func:`multinomial_loss`); elsewhere it is the
product of two tables, the rows' h and Q. Without hidden layers W makes [μ ; log σ²] at once and h = z.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.models.base import Recommender
from recdistill.models.bpr import normal

_TILE = 1 << 23
"""Scores that exist at once in the loss: 32 MB."""

_ROWS_AT_ONCE = 4096


class Encoded(NamedTuple):
    """What the network makes of b rows: h ``(b, width)``, and μ and log σ² ``(b, dim)``."""

    hidden: Tensor
    mean: Tensor
    log_variance: Tensor


class Autoencoder(nn.Module):
    """The network; weights start Xavier-normal, biases at 0.

    Args:
        num_columns: length of a row.
        dim: length of z.
        hidden_dim: width of both hidden layers; 0 for none.
        dropout: share of a row's entries dropped in training.
        generator: draws the weights.
    """

    def __init__(
        self, num_columns: int, dim: int, hidden_dim: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.hidden_dim, self.dropout = hidden_dim, dropout
        self.input_table, self.input_bias = _layer(num_columns, hidden_dim or 2 * dim, generator)
        if hidden_dim:
            self.latent_weight, self.latent_bias = _layer(hidden_dim, 2 * dim, generator)
            self.hidden_weight, self.hidden_bias = _layer(dim, hidden_dim, generator)
        table, _ = _layer(num_columns, hidden_dim or dim, generator)
        self.output_table, self.output_bias = table, nn.Parameter(torch.zeros(num_columns))

    def encode(self, rows: ops.Rows, noisy: bool) -> Encoded:
        """Encode binary rows; dropout and ε, if ``noisy``, come from torch's own generator."""
        latent = self._input(rows, noisy)
        if self.hidden_dim:
            latent = ops.full_precision(latent.tanh() @ self.latent_weight + self.latent_bias)
        mean, log_variance = latent.chunk(2, dim=1)
        code = mean
        if noisy:
            code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        if self.hidden_dim:
            code = ops.full_precision(code @ self.hidden_weight + self.hidden_bias).tanh()
        return Encoded(code, mean, log_variance)

    def _input(self, rows: ops.Rows, noisy: bool) -> Tensor:
        """W x̃ + a, shape ``(b, width)``."""
        table, columns, indptr = self.input_table, rows.items, rows.indptr
        lengths = indptr.diff()
        scale = lengths.clamp(min=1).float().rsqrt()
        if noisy and self.dropout > 0:
            kept = torch.rand(len(columns)) >= self.dropout
            indptr = F.pad(kept.cumsum(0), (1, 0))[indptr]
            columns, scale = columns[kept], scale / (1 - self.dropout)
        found = F.embedding_bag(
            columns.to(table.device),
            table,
            indptr[:-1].int().to(table.device),
            mode="sum",
            sparse=table.requires_grad and 2 * len(columns) < len(table),
        )
        return found * scale[:, None].to(table.device) + self.input_bias


def _layer(rows: int, columns: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """A weight ``(rows, columns)`` and the bias of its columns."""
    weight = normal(rows, columns, math.sqrt(2 / (rows + columns)), generator)
    return nn.Parameter(weight), nn.Parameter(torch.zeros(columns))


class Codes:
    """The rows' vectors h: made once for the batch's rows, those of others when they are asked for.

    Args:
        network: the autoencoder.
        rows: all rows; a row is what :class:`Interactions` calls a user.
        batch: rows that several losses will read, ascending; None to keep all, if there is no gradient.
    """

    def __init__(self, network: Autoencoder, rows: Interactions, batch: Tensor | None = None) -> None:
        self._network, self._rows, self._batch = network, rows, batch
        self._noisy = network.training  # as it was when the state was made

    def _encode(self, rows: Tensor) -> Encoded:
        return self._network.encode(self._rows.rows(rows.cpu()), self._noisy)

    @cached_property
    def _of_batch(self) -> Encoded:
        assert self._batch is not None
        return self._encode(self._batch)

    @cached_property
    def table(self) -> Tensor:
        """Of all rows, shape ``(rows, width)``."""
        blocks = torch.arange(self._rows.num_users).split(_ROWS_AT_ONCE)
        return torch.cat([self._encode(block).hidden for block in blocks])

    def encoded(self, rows: Tensor) -> Encoded:
        """Of distinct ``rows``, ascending; those of the batch are the ones that every loss of the step reads."""
        if self._batch is not None and torch.equal(rows, self._batch):
            return self._of_batch
        return self._encode(rows)

    def keeps_all(self) -> bool:
        """Whether reads come from :attr:`table`."""
        return self._batch is None and not torch.is_grad_enabled()

    def vectors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A table of vectors, and the place in it of each of ``rows`` (any shape)."""
        if self.keeps_all():
            return self.table, rows
        if self._batch is not None and len(self._batch) > 0:
            place = torch.searchsorted(self._batch, rows).clamp(max=len(self._batch) - 1)
            if bool((self._batch[place] == rows).all()):
                return self._of_batch.hidden, place
        unique, place = ops.unique_inverse(rows, self._rows.num_users)
        return self.encoded(unique).hidden, place


class AutoencoderModel(Recommender, ABC):
    """Base of the models that are this autoencoder over rows of the train pairs.

    Args:
        dim: length of z, at least 1.
        hidden_dim: width of the hidden layer on either side of z, at least 0; 0 for none.
        dropout: share of a row's entries dropped in training, within [0, 1).
        beta: largest weight of the KL term, at least 0.
        anneal_steps: steps over which β grows to it, at least 0.
    """

    tables: ClassVar[tuple[str, ...]] = (
        "network.input_table",
        "network.output_table",
        "network.output_bias",
    )

    def __init__(self, *, dim: int, hidden_dim: int, dropout: float, beta: float, anneal_steps: int) -> None:
        super().__init__()
        self.dim, self.hidden_dim, self.dropout = dim, hidden_dim, dropout
        self.beta, self.anneal_steps = beta, anneal_steps

    @abstractmethod
    def rows_in(self, interactions: Interactions) -> Interactions:
        """The rows that the network reads, as what :class:`Interactions` calls users."""

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.rows = self.rows_in(interactions)
        self.network = Autoencoder(self.rows.num_items, self.dim, self.hidden_dim, self.dropout, generator)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def attach(self, users: Vocabulary, items: Vocabulary, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self.rows = self.rows_in(train_pairs)

    def loss_of(self, codes: Codes, rows: Tensor) -> Tensor:
        """The loss of distinct ``rows`` (b,), ascending, whole; in training it counts a step of β's growth."""
        network = self.network
        hidden, mean, log_variance = codes.encoded(rows)
        observed = self.rows.rows(rows.cpu())
        likelihood = multinomial_loss(hidden, network.output_table, network.output_bias, observed)
        if self.beta == 0:
            return likelihood
        steps = self.get_buffer("steps")
        beta = annealed(self.beta, steps, self.anneal_steps)
        if self.training:
            steps += 1
        return likelihood + beta * divergence(mean, log_variance)


def multinomial_loss(hidden: Tensor, weight: Tensor, bias: Tensor, rows: ops.Rows) -> Tensor:
    """Mean over rows of −Σ over their columns of log softmax(h · Q + b), one tile of scores at a time.

    The gradient is made with the loss, as a softmax's is at hand then: no tile is kept or made twice.

    Args:
        hidden: h, shape ``(b, width)``.
        weight: Q, shape ``(columns, width)``.
        bias: b, shape ``(columns,)``.
        rows: the observed columns of each row, on the CPU.
    """
    columns = rows.items.long().to(hidden.device)
    total: Tensor = _Multinomial.apply(  # pyright: ignore[reportAssignmentType]
        hidden, weight, bias, rows.indptr, columns, torch.is_grad_enabled()
    )
    return total / max(len(hidden), 1)


class _Multinomial(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        indptr: Tensor,
        columns: Tensor,
        wanted: bool,
    ) -> Tensor:
        total = hidden.new_zeros(())
        gradients = [torch.zeros_like(part) for part in (hidden, weight, bias)] if wanted else []
        counts = indptr.diff().to(hidden.device)
        size = max(1, _TILE // max(len(weight), 1))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), size):
                part = slice(start, start + size)
                low, high = int(indptr[start]), int(indptr[min(start + size, len(hidden))])
                count = counts[part, None].to(hidden.dtype)
                own = ops.owners_of(counts[part])
                observed = own * len(weight) + columns[low:high]
                scores = torch.addmm(bias, hidden[part], weight.T)  # (tile, columns)
                norm = scores.logsumexp(dim=1, keepdim=True)
                total += (count * norm).sum() - scores.view(-1)[observed].sum()
                if wanted:
                    residual = scores.sub_(norm).exp_().mul_(count)
                    residual.view(-1)[observed] -= 1.0
                    gradients[0][part] = residual @ weight
                    gradients[1].addmm_(residual.T, hidden[part])
                    gradients[2] += residual.sum(dim=0)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        by_hidden, by_weight, by_bias = (part * gradient for part in ctx.saved_tensors)
        return by_hidden, by_weight, by_bias, None, None, None


def log_norms(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log Σ_c exp(h · Q + b)_c of each row, shape ``(b,)``; tiles are made again on the way back.

    Args:
        hidden: h, shape ``(b, width)``.
        weight: Q, shape ``(columns, width)``.
        bias: b, shape ``(columns,)``.
    """

    def norms(part: Tensor) -> Tensor:
        return ops.full_precision(torch.addmm(bias, part, weight.T)).logsumexp(dim=1)

    parts = hidden.split(max(1, _TILE // max(len(weight), 1)))
    if not torch.is_grad_enabled():
        return torch.cat([norms(part) for part in parts])
    found = [checkpoint(norms, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(cast("list[Tensor]", found))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over rows of KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (σ² + μ² − 1 − log σ²), for μ and log σ² ``(b, dim)``."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1).mean()


def annealed(beta: float, steps: Tensor, anneal_steps: int) -> Tensor:
    """β after so many steps: it grows linearly from 0 over the first ``anneal_steps``."""
    grown = (steps / anneal_steps).clamp(max=1) if anneal_steps else torch.ones_like(steps)
    return beta * grown


def biases(bias: Tensor, ids: Tensor) -> Tensor:
    """``bias[ids]``, the shape of ``ids``; any value at padding (−1)."""
    return bias.index_select(0, ids.clamp(min=0).reshape(-1)).view(ids.shape)
