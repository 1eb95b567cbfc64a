import pytest
import torch
import torch.nn.functional as F

from mmtok.losses.adversarial import DISCRIMINATOR, GENERATOR, LeCAM, feature_distance

LOGITS = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
UNBOUNDED = ("hinge", "nonsaturating")  # of least squares, the logits have a place to be


@pytest.mark.parametrize("name", UNBOUNDED)
def test_the_discriminator_wants_real_up_and_fake_down(name):  # image.md trap 15
    real, fake = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    DISCRIMINATOR[name](real, fake).backward()
    assert (real.grad <= 0).all()
    assert (real.grad < 0).any()
    assert (fake.grad >= 0).all()
    assert (fake.grad > 0).any()
    sure = DISCRIMINATOR[name](torch.full((4,), 8.0), torch.full((4,), -8.0))
    wrong = DISCRIMINATOR[name](torch.full((4,), -8.0), torch.full((4,), 8.0))
    assert sure < 0.01 < 8 < wrong + 0.01


@pytest.mark.parametrize("name", UNBOUNDED)
def test_the_generator_wants_fake_up(name):
    fake = LOGITS.clone().requires_grad_()
    GENERATOR[name](fake).backward()
    assert (fake.grad < 0).all()


def test_least_squares_wants_real_at_one_and_fake_at_zero_and_the_generator_fake_at_one():
    assert DISCRIMINATOR["least_squares"](torch.ones(3), torch.zeros(3)) == 0
    assert DISCRIMINATOR["least_squares"](torch.zeros(3), torch.ones(3)) == 1
    assert GENERATOR["least_squares"](torch.ones(3)) == 0
    assert GENERATOR["least_squares"](torch.zeros(3)) == 1
    assert set(DISCRIMINATOR) == set(GENERATOR) == {*UNBOUNDED, "least_squares"}


def test_feature_matching_pulls_the_reconstruction_only():  # audio.md 6: the real branch needs no graph
    real = [[torch.tensor([1.0, 3.0]), torch.tensor([100.0])], [torch.tensor([2.0])]]
    fake = [[torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([90.0])], [torch.tensor([2.0])]]
    assert float(feature_distance(real, fake)) == pytest.approx((0.5 + 10) / 2 / 2)
    relative = feature_distance(real, fake, relative=True)
    assert float(relative) == pytest.approx((0.5 / 2 + 10 / 100) / 2 / 2)
    relative.backward()
    assert fake[0][0].grad.tolist() == [pytest.approx(0.5 / 2 / 2 / 2), 0.0]
    silent = [[torch.zeros(2)]]
    assert feature_distance(silent, silent, relative=True) == 0  # audio of nothing: no NaN


def test_the_likelihood_is_that_of_the_library():
    real, fake = torch.randn(7), torch.randn(7)
    expected = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), torch.cat([torch.ones(7), torch.zeros(7)]))
    torch.testing.assert_close(DISCRIMINATOR["nonsaturating"](real, fake), expected)
    judged = F.binary_cross_entropy_with_logits(fake, torch.ones(7))
    torch.testing.assert_close(GENERATOR["nonsaturating"](fake), judged)


def test_lecam_holds_each_side_near_the_averages_of_the_other():
    lecam = LeCAM(decay=0.5)
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([-1.0, -3.0])
    assert lecam(real, fake) == 0  # nothing is known yet
    lecam.update(lecam.stats(real, fake))
    assert lecam.averages.tolist() == [3.0, -2.0]  # set at first, not pulled from zero
    lecam.update(lecam.stats(real + 2, fake))
    assert lecam.averages.tolist() == [4.0, -2.0]
    # (real - fake's average)^2 where above it, and (real's average - fake)^2 where above it
    term = lecam(torch.tensor([1.0, -5.0]), torch.tensor([0.0, 6.0]))
    assert term.item() == pytest.approx((3**2 + 0) / 2 + (4**2 + 0) / 2)


def test_lecam_keeps_its_state_with_the_weights():  # image.md trap 21
    lecam = LeCAM()
    lecam.update(lecam.stats(torch.ones(3), -torch.ones(3)))
    other = LeCAM()
    other.load_state_dict(lecam.state_dict())
    assert torch.equal(other.averages, lecam.averages)
    assert int(other.updates) == 1
    assert not list(lecam.parameters())
