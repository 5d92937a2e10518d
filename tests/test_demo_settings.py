"""What ``make demo`` runs is allowed, which only the quick demo would show in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from springback.errors import SpringbackError
from springback.jobs.audit.checks import check_settings as check_audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.checks import check_settings as check_boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.demo import AUDIT, AUDIT_QUICK, BOOST, BOOST_QUICK, demo


@pytest.mark.parametrize("settings", [AUDIT, AUDIT_QUICK])
def test_the_audits_are(settings: AuditSettings) -> None:
    checked = check_audit(replace(settings, seeds=(0, 1, 2)))
    assert (checked.n_pos, checked.doses) == (settings.n_pos, settings.doses)


@pytest.mark.parametrize("settings", [BOOST, BOOST_QUICK])
def test_the_boosts_are(settings: BoostSettings) -> None:
    checked = check_boost(settings)
    assert set(settings.mu) <= set(checked.mu)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_cannot_be_is_named_as_given(seed: int, tmp_path: Path) -> None:
    with pytest.raises(SpringbackError, match=f"seed {seed}; allowed: 0 to 1431655764"):
        demo(tmp_path / "out", seed=seed)
    assert not (tmp_path / "out").exists()
