"""What ``make demo`` runs is allowed, which only the quick demo would show in a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from springback.jobs.audit.checks import check_settings as check_audit
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.boost.checks import check_settings as check_boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.demo import AUDIT, AUDIT_QUICK, BOOST, BOOST_QUICK


@pytest.mark.parametrize("settings", [AUDIT, AUDIT_QUICK])
def test_the_audits_are(settings: AuditSettings) -> None:
    checked = check_audit(replace(settings, seeds=(0, 1, 2)))
    assert (checked.n_pos, checked.doses) == (settings.n_pos, settings.doses)


@pytest.mark.parametrize("settings", [BOOST, BOOST_QUICK])
def test_the_boosts_are(settings: BoostSettings) -> None:
    checked = check_boost(settings)
    assert set(settings.mu) <= set(checked.mu)
