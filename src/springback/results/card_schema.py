"""The elasticity card and the comparison of cards, as JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from springback.core import ABSENT
from springback.elasticity import Comparison as ComparedCards
from springback.elasticity import Difference, ElasticityCard, Quantity
from springback.elasticity.card import LATER, QUANTITIES
from springback.elasticity.make_card import WORDS


@dataclass(frozen=True)
class Card:
    """An elasticity card, under a promise of its own.

    Attributes:
        schema_version: of the card
        model: as in `inputs.model`
        model_hash: likewise; may be empty
        study: hash of data and settings but for model, revision and seeds; studies that share it
            pair by seed; empty if unknown
        verdict: sentences
        seeds: as in `rebound`
        n_pos: likewise
        doses: likewise
        noise_floor: as of the audit
        quantities: by name: `gain`, `share_lost`, `resistance_ratio`, `rebound_slope`,
            `share_slope`, `beyond_controls`, `beyond_share_slope`, `half_life_dose`,
            `behaviour_half_dose`, `dose_to_undo`, `kl_dose`, `worst_case`, `utility_kept`; each at
            the largest ``n_pos``
        pairs: by pair: resistance ratio, with its paired test in ``reason``
        agreement: by pair of judges of sampled texts: Cohen's kappa or Spearman's rank
            correlation; only where there are several judges
    """

    schema_version: Literal[1]
    model: str = ""
    model_hash: str = ""
    study: str = ""
    verdict: str = ""
    seeds: tuple[int, ...] = ()
    n_pos: tuple[int, ...] = ()
    doses: tuple[float, ...] = ()
    noise_floor: Mapping[str, float | None] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    pairs: Mapping[str, Quantity] = field(default_factory=dict)
    agreement: Mapping[str, Quantity] = field(default_factory=dict, metadata=ABSENT)

    @classmethod
    def of(cls, card: ElasticityCard) -> Card:
        same = {f.name: getattr(card, f.name) for f in fields(cls) if f.name != "quantities"}
        return cls(**same, quantities=card.quantities())

    def full(self) -> ElasticityCard:
        """The card it was made :meth:`of`; every quantity must be there, but for later ones."""
        same: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        del same["schema_version"], same["quantities"]
        same["noise_floor"] = {k: v for k, v in self.noise_floor.items() if v is not None}
        later = {name: Quantity(*WORDS[name], reason="not measured") for name in LATER}
        same |= {name: {**later, **self.quantities}[name] for name in QUANTITIES}
        return ElasticityCard(**same)


@dataclass(frozen=True)
class Comparison:
    """Cards side by side: ``elasticity.compare([…]).to_dict()``.

    Attributes:
        schema_version: of the comparison
        names: of the models
        level: of the intervals
        notes: what keeps the models from being compared like with like
        cards: in the order of the names
        differences: of every quantity and pair of models
    """

    schema_version: Literal[1] = 1
    names: tuple[str, ...] = ()
    level: float = 0.95
    notes: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    differences: tuple[Difference, ...] = ()

    @classmethod
    def of(cls, compared: ComparedCards) -> Comparison:
        return cls(
            names=compared.names,
            level=compared.level,
            notes=compared.notes,
            cards=tuple(map(Card.of, compared.cards)),
            differences=tuple(d for row in compared.rows for d in row.differences),
        )


@dataclass(frozen=True)
class StudyCard:
    """One model of a series.

    Attributes:
        name: to be shown
        folder: where that model's own `result.json` and `report.html` lie: relative to this
            file's folder and inside it, with `/`; null where there are none
        card: its elasticity card
    """

    name: str
    folder: str | None = None
    card: Card | None = None


@dataclass(frozen=True)
class Series:
    """``analysis`` of a series: several models or checkpoints measured with one study.

    Attributes:
        models: in the order to be shown
        comparison: of their cards; its ``names`` are those of ``models``
    """

    models: tuple[StudyCard, ...] = ()
    comparison: Comparison | None = None
