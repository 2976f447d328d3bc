"""WKD-L and WKD-F together, with their schedule, in a distiller: a whole step of the authors' code (tests/golden)."""

import pytest
import torch
from published_values import golden_files, load
from torch import nn

from graphkd import Distiller
from graphkd.losses import wkd_features, wkd_logits
from graphkd.projectors import MapProjector
from graphkd.training import ConstantThenCosine

FILES = golden_files("wkd_full_*.npz")


class Given(nn.Module):
    """A network that returns what it is made of."""

    def __init__(self, logits, maps):
        super().__init__()
        self.logits, self.maps = nn.Parameter(logits), nn.Parameter(maps)

    def forward(self, inputs):
        return {"logits": self.logits, "map": self.maps}


def returned(output):
    return output


def test_all_golden_files_are_here():
    assert [path.stem[9:11] for path in FILES] == ["01", "03", "04"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_step_is_the_authors(path, assert_golden):
    golden = load(path)
    student, teacher = (Given(golden[f"logits_{side}"], golden[f"feat_{side}"]) for side in ("student", "teacher"))
    cost = 1 - torch.exp(-float(golden["sharpen"]) * golden["raw_dist"])
    decay = int(golden["cosine_decay_epoch"])
    criteria = {
        "logits": wkd_logits(
            cost,
            temperature=float(golden["temperature"]),
            epsilon=float(golden["sinkhorn_lambda"]),
            num_iters=int(golden["sinkhorn_iter"]),
            parity=True,
        )
    }
    weights = {"logits/transport": ConstantThenCosine(float(golden["logit_weight"]), decay)}
    if float(golden["feat_weight"]) > 0:
        projector = MapProjector("conv1x1", 5, 7).double()
        names = {"conv": "convs.0", "bn": "norm"}
        state = {
            f"{names[name.split('.')[2]]}.{name.split('.')[3]}": value
            for name, value in golden.items()
            if name.startswith("param.conv_reg.")
        }
        projector.load_state_dict(state)
        criteria["features"] = wkd_features(
            grid=int(golden["spatial_grid"]),
            mean_ratio=float(golden["mean_cov_ratio"]),
            eps=float(golden["eps"]),
            projector=projector,
        )
        weights["features"] = ConstantThenCosine(float(golden["feat_weight"]), decay)
    if float(golden["logit_weight"]) == 0:
        # Their step without WKD-L has no target term either.
        del criteria["logits"], weights["logits/transport"]
    distiller = Distiller(
        student, teacher, student_features=returned, teacher_features=returned, criteria=criteria, weights=weights
    ).double()
    distiller.set_epoch(int(golden["epoch"]), int(golden["epochs"]))
    if "logits" in criteria:
        assert_golden(torch.tensor(distiller.weights["logits/transport"]), golden["effective_logit_weight"])
    if "features" in criteria:
        assert_golden(torch.tensor(distiller.weights["features"]), golden["effective_feat_weight"])

    step = distiller(torch.zeros(4, 1), golden["target"])
    step.loss.backward()
    assert_golden(step.logs["task"], golden["loss_ce_f64"])
    assert_golden(step.loss - step.logs["task"], golden["loss_kd_f64"])
    assert_golden(step.loss, golden["loss_total_f64"])
    assert_golden(student.logits.grad, golden["grad_logits_student_f64"])
    if "features" in criteria:
        assert_golden(student.maps.grad, golden["grad_feat_student_f64"])
