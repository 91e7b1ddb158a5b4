"Metrics equal a computation over all data at once, however it is cut, on any dtype; bad input is told."
import math

import pytest
import torch
import torch.nn.functional as F

from miniai.metrics import PSNR, Accuracy, FuncMetric, Mean, Metric, MSE, TopK

G = torch.Generator().manual_seed(0)
logits, labels = torch.randn(97, 7, generator=G), torch.randint(0, 7, (97,), generator=G)
a, b = torch.rand(97, 1, 5, 4, generator=G), torch.rand(97, 1, 5, 4, generator=G)
mse = F.mse_loss(a.double(), b.double()).item()

@pytest.mark.parametrize('make, x, y, expected', [
    (Accuracy, logits, labels, (logits.argmax(1)==labels).double().mean().item()),
    (Accuracy, logits.argmax(1), labels, (logits.argmax(1)==labels).double().mean().item()),
    (lambda: TopK(3), logits, labels, (logits.topk(3).indices==labels[:,None]).any(1).double().mean().item()),
    (lambda: TopK(99), logits, labels, 1.), (MSE, a, b, mse), (PSNR, a, b, -10*math.log10(mse)),
    (lambda: PSNR(255.), a*255, b*255, -10*math.log10(mse)), (lambda: FuncMetric(F.l1_loss), a, b, F.l1_loss(a.double(), b.double()).item())],
    ids=['accuracy', 'guesses', 'top3', 'top99', 'mse', 'psnr', 'psnr255', 'func'])
@pytest.mark.parametrize('seed', range(5))
def test_any_cut_gives_the_same(make, x, y, expected, seed):
    g = torch.Generator().manual_seed(seed)
    cuts = [0, *sorted((torch.randperm(96, generator=g)[:6]+1).tolist()), 97]
    m = make()
    for i, j in zip(cuts, cuts[1:]): m.add(x[i:j], y[i:j])
    assert m.value==pytest.approx(expected, rel=1e-6) and m.compute()==m.value
    m.reset()
    with pytest.raises(ValueError, match='no value yet'): m.value

def test_mean_is_weighted_and_mixes_numbers_and_tensors():
    m = Mean()
    m.add(0.6, n=32)
    m.update(torch.tensor(0.9), n=2)
    assert m.value==pytest.approx((0.6*32+0.9*2)/34)

def test_half_precision_is_summed_exactly_enough():
    m = MSE()
    for _ in range(100): m.add(torch.full((4, 8), 0.5).half(), torch.zeros(4, 8).half())
    assert m.value==0.25

@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_nan_and_inf_are_reported(bad):
    m = Mean()
    m.add(1.)
    m.add(torch.tensor(bad))
    assert not math.isfinite(m.value)

def test_no_graph_is_kept():
    m = FuncMetric(F.mse_loss)
    m.add(a.clone().requires_grad_(), b)
    assert not m.vals[0].requires_grad

def test_equal_images_have_infinite_psnr():
    m = PSNR()
    m.add(a, a)
    assert m.value==math.inf

@pytest.mark.parametrize('f, exc, word', [
    (lambda: Accuracy().add(logits, labels.float()), TypeError, 'integer'), (lambda: Accuracy().add(logits, labels[:5]), ValueError, 'N,classes'),
    (lambda: Accuracy().add(logits, labels[:,None]), ValueError, 'N,classes'), (lambda: MSE().add(a, b[:,0]), ValueError, 'shapes differ'),
    (lambda: TopK(0), ValueError, 'at least 1'), (lambda: PSNR(0), ValueError, 'positive'), (lambda: FuncMetric(3), TypeError, 'function'),
    (lambda: Metric().add(torch.zeros(3)), ValueError, 'one number')])
def test_bad_input(f, exc, word):
    with pytest.raises(exc, match=word): f()

def test_course_style_subclass():
    class Acc(Metric):
        def calc(self, inps, targs): return (inps==targs).float().mean()
    m = Acc()
    m.add(torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 1, 1, 2, 1, 0]), n=6)
    m.add(torch.tensor([1, 1, 2, 0, 1]), torch.tensor([0, 1, 1, 2, 1]), n=5)
    assert m.value==pytest.approx(5/11)
