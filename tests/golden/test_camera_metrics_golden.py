"""RotErr, TransErr and CamMC against the published evaluator (cases evalmetric/real)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cami2v.evaluation.camera_metrics import camera_errors, relative_to_first
from tests.golden.cases import Case, load_case


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("evalmetric__real")


def published_row(truth: Tensor, estimate: Tensor, scales: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Order of the stored rows: RotErr, TransErr_rel, CamMC_rel, TransErr_abs, CamMC_abs."""
    relative = camera_errors(truth, estimate).published()
    absolute = camera_errors(
        *(scaled(path, by) for path, by in zip((truth, estimate), scales, strict=True)), unit="first"
    )
    return torch.stack([*relative.values(), absolute.published()["TransErr_sum"], absolute.published()["CamMC_sum"]])


def scaled(path: Tensor, by: float) -> Tensor:
    return torch.cat([path[..., :3], by * path[..., 3:]], dim=-1)


def assert_equals(row: Tensor, stored: Tensor) -> None:
    # The tolerance the case states: acos near 1 amplifies rounding.
    torch.testing.assert_close(row[0], stored[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(row[1:], stored[1:], rtol=1e-9, atol=1e-9)


def test_errors_equal_the_published_ones(case: Case) -> None:
    for pair in case.parameters["pairs"]:
        clip, other = pair["clip"], pair["other"]
        truth, perturbed = case[f"{clip}_w2c"], case[f"{clip}_pert_w2c"]
        assert_equals(published_row(truth, truth), case[f"{clip}_metric_self"])
        assert_equals(published_row(truth, perturbed), case[f"{clip}_metric_pert"])
        assert_equals(published_row(truth, case[f"{other}_w2c"]), case[f"{clip}_metric_other"])
        assert_equals(published_row(truth, perturbed, (2.5, 3.1)), case[f"{clip}_metric_pert_scaled_2.5_3.1"])


def test_errors_of_every_frame_equal_the_published_ones(case: Case) -> None:
    for pair in case.parameters["pairs"]:
        clip = pair["clip"]
        errors = camera_errors(case[f"{clip}_w2c"], case[f"{clip}_pert_w2c"])
        torch.testing.assert_close(errors.rotation_radians, case[f"{clip}_rot_per_frame"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(errors.translation, case[f"{clip}_trans_per_frame"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(errors.cammc, case[f"{clip}_cammc_per_frame"], rtol=1e-9, atol=1e-9)
        stored = case[f"{clip}_rel_left"]
        torch.testing.assert_close(relative_to_first(case[f"{clip}_w2c"]), stored, rtol=1e-12, atol=1e-12)


def test_a_motionless_path_has_no_extent(case: Case) -> None:
    first = case[f"{case.parameters['pairs'][0]['clip']}_w2c"]
    motionless = torch.eye(4, dtype=torch.float64)[:3].expand(len(first), 3, 4)
    for row, name in (
        (published_row(motionless, first), "static_vs_first"),
        (published_row(first, motionless), "first_vs_static"),
    ):
        torch.testing.assert_close(row[0], case[name][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(row[1:], case[name][1:], rtol=1e-9, atol=1e-9)
