"""The linear combination of LoRA adapters: which tensors come out, and what each of them is.

dW = scaling * B A of each adapter, so a sum of them is the product of the B's side by side, each
times its coefficient and scaling, and of the A's below each other.  (The product of the sum of the
B's and the sum of the A's is another matrix.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from springback.errors import ModelError
from springback.weights.adapters.reading import Adapter
from springback.weights.arithmetic import Floats, decode
from springback.weights.direction import Mu, mu_for
from springback.weights.io.folder import open_weights
from springback.weights.io.stream import Reader, Source


class AdapterSum:
    """The linear combination: which tensors come out, and what each of them is."""

    def __init__(
        self, adapters: list[Adapter], mu: Mu, weights: tuple[float, ...], base: Path | None
    ) -> None:
        self.adapters, self.mu, self.weights = adapters, mu, weights
        names = sorted({name for a in adapters for name in a.modules})
        self.ranks = {
            name: sum(a.modules[name].rank for _, a in self._parts(name)) for name in names
        }
        self.modules = [name for name in names if self.ranks[name]]
        self.full = sorted({name for a in adapters for name in a.full})
        self._check_layout(names)
        self.base = self._base_tensors(base)

    @property
    def ft(self) -> Adapter:
        return self.adapters[-1]

    def coefficients(self, name: str) -> tuple[float, ...]:
        """One an adapter, ft last: -mu and 1 + mu for two."""
        mu = mu_for(self.mu, f"{name}.weight")
        return (*(-mu * w for w in self.weights), 1.0 + mu * sum(self.weights))

    def _parts(self, name: str) -> list[tuple[float, Adapter]]:
        pairs = zip(self.coefficients(name), self.adapters, strict=True)
        return [(c, a) for c, a in pairs if c != 0.0 and name in a.modules]

    def _check_layout(self, names: list[str]) -> None:
        for name in names:
            have = [a.modules[name] for a in self.adapters if name in a.modules]
            shapes = {(m.a.shape[1], m.b.shape[0], m.embedding) for m in have}
            if len(shapes) > 1:
                raise ModelError(
                    f"{name} has LoRA of different widths in the adapters "
                    f"({sorted(s[:2] for s in shapes)}); allowed: adapters of one base model"
                )
            if any(f"{name}.weight" in a.full.keys() - a.copies for a in self.adapters):
                raise ModelError(
                    f"{name} has LoRA in one adapter and is saved whole (modules_to_save) in one, "
                    "which no adapter can hold; --materialise with --base writes full weights"
                )

    def _base_tensors(self, folder: Path | None) -> Mapping[str, Source]:
        """The base's tensors if some adapter lacks one that another holds whole."""
        lacking = [n for n in self.full if any(n not in a.full for a in self.adapters)]
        lacking = [n for n in lacking if not self.is_copy(n)]
        if not lacking:
            return {}
        if folder is None:
            raise ModelError(
                f"{lacking[0]} is saved whole in one adapter and not in another, which then has "
                "the base model's; give the base model's folder with --base"
            )
        tensors = open_weights(folder).tensors
        for name in lacking:
            if name not in tensors:
                raise ModelError(
                    f"{folder} has no tensor {name}, which an adapter replaces; "
                    "name the base model that the adapters were trained on"
                )
        return {name: tensors[name] for name in lacking}

    def is_copy(self, name: str) -> bool:
        return all(name in a.copies for a in self.adapters if name in a.full)

    def product(self, reader: Reader, name: str) -> tuple[Floats, Floats]:
        """(B, A) of a module in float64, (out, r) and (r, in), coefficients and scalings in B."""
        left, right = [], []
        for coefficient, adapter in self._parts(name):
            factors = adapter.factors(reader, name)
            assert factors is not None
            left.append(coefficient * factors[0])
            right.append(factors[1])
        return np.concatenate(left, 1), np.concatenate(right, 0)

    def step(self, reader: Reader, name: str) -> float:
        """||mu * direction||^2 of a module's product."""
        factors = self.direction(reader, name)
        return norm_sq(*factors) if factors else 0.0

    def direction(self, reader: Reader, name: str) -> tuple[Floats, Floats] | None:
        """(B, A) of mu * direction of a module in float64, None where nothing moves."""
        left, right = [], []
        for i, (c, adapter) in enumerate(zip(self.coefficients(name), self.adapters, strict=True)):
            moved = c - (i == len(self.adapters) - 1)
            if moved and (factors := adapter.factors(reader, name)) is not None:
                left.append(moved * factors[0])
                right.append(factors[1])
        return (np.concatenate(left, 1), np.concatenate(right, 0)) if left else None

    def bias(self, reader: Reader, name: str) -> Floats:
        """What lora_bias adds to a module's output, (out,)."""
        total = np.zeros(next(a.modules[name].b.shape[0] for _, a in self._parts(name)))
        for coefficient, adapter in self._parts(name):
            module = adapter.modules[name]
            if module.bias is not None:
                total += coefficient * module.scaling * adapter.values(reader, module.bias)
        return total

    def whole(self, reader: Reader, name: str) -> tuple[Floats, Floats]:
        """A tensor that is saved whole: ft's values and its step."""
        tensors = []
        for adapter in self.adapters:
            if name in adapter.full:
                tensors.append(adapter.values(reader, adapter.full[name]))
            elif name in self.base:
                info = self.base[name][1]
                raw = reader.read(self.base[name], 0, info.size)
                tensors.append(decode(raw, info.code).reshape(info.shape))
            else:  # the frozen embedding beside its LoRA: the base's own weights
                tensors.append(
                    next(a.values(reader, a.full[name]) for a in self.adapters if name in a.full)
                )
        if len({f.shape for f in tensors}) > 1:
            raise ModelError(
                f"{name} has different shapes in the adapters; allowed: adapters of one run; "
                "resize the embeddings alike before training"
            )
        mu = mu_for(self.mu, name)
        move = sum(
            (mu * w * (tensors[-1] - f) for w, f in zip(self.weights, tensors[:-1], strict=True)),
            np.zeros_like(tensors[-1]),
        )
        return tensors[-1], move

    def has_bias(self) -> bool:
        """Whether any LoRA adds a bias of its own."""
        return any(m.bias is not None for a in self.adapters for m in a.modules.values())


def norm_sq(left: Floats, right: Floats) -> float:
    """||left @ right||^2 (Frobenius) without the product: tr((L^T L)(R R^T))."""
    return max(0.0, float(np.einsum("ij,ji->", left.T @ left, right @ right.T)))


def cut_rank(left: Floats, right: Floats, rank: int) -> tuple[Floats, Floats, float, float]:
    """The best approximation of left @ right of ``rank``, as two factors, from the factors alone.

    Also ||what was cut||^2 and ||left @ right||^2.  QR of both factors leaves an SVD of a matrix
    as large as the rank; the product (out, in) is never formed.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    root = np.sqrt(s[:rank])
    cut, whole = float((s[rank:] ** 2).sum()), float((s**2).sum())
    return q_left @ (u[:, :rank] * root), (root[:, None] * vt[:rank]) @ q_right.T, cut, whole
