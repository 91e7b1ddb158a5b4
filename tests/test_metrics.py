"Metrics equal a computation over all data at once, however it is cut, on any dtype; bad input is told."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniai.learner import Learner, MetricsCB, TrainCB
from miniai.metrics import PSNR, Accuracy, FuncMetric, History, Mean, Metric, MSE, Together, TopK

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

# --- many batches together
class Refills:
    "A loader that fills the same NumPy memory for each batch, as some do."
    def __init__(self, x, y, bs): self.x, self.y, self.bs = x, y, bs
    def __iter__(self):
        xb, yb = np.empty((self.bs, *self.x.shape[1:]), np.float32), np.empty(self.bs, np.int64)
        for i in range(0, len(self.x), self.bs):
            n = len(self.x[i:i+self.bs])
            xb[:n], yb[:n] = self.x[i:i+self.bs], self.y[i:i+self.bs]
            yield torch.from_numpy(xb)[:n], torch.from_numpy(yb)[:n]
        xb[:], yb[:] = np.nan, -1

@pytest.mark.parametrize('bs', [1, 5, 97])
def test_memory_that_is_filled_again_does_no_harm(bs):
    dl = Refills(logits.numpy(), labels.numpy(), bs)
    metrics = MetricsCB(acc=Accuracy(), top=TopK(3), verbose=False)
    learn = Learner(nn.Identity(), (dl, dl), F.cross_entropy, cbs=[TrainCB(), metrics], opt_func=None)
    learn.fit(1, train=False)
    row = learn.history[-1]
    assert row['acc']==pytest.approx((logits.argmax(1)==labels).double().mean().item())
    assert row['top']==pytest.approx((logits.topk(3).indices==labels[:,None]).any(1).double().mean().item())
    assert row['loss']==pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

def test_outputs_of_varying_length_are_judged_apart():
    "Pictures of different sizes, a class for each pixel: [N,classes,L]."
    sizes = [3, 3, 3, 5, 5, 2, 3, 3]
    batches = [(torch.randn(4, 6, n), torch.randint(0, 6, (4, n))) for n in sizes]
    metrics = MetricsCB(acc=Accuracy(), verbose=False)
    learn = Learner(nn.Identity(), (batches, batches), F.cross_entropy, cbs=[TrainCB(), metrics], opt_func=None)
    learn.fit(1, train=False)
    right, all_ = sum((x.argmax(1)==y).sum().item() for x, y in batches), 4*sum(sizes)
    assert learn.history[-1]['acc']==pytest.approx(right/all_)

@pytest.mark.parametrize('numbers', [1, 3, 100])
def test_together_gives_everything_once_and_in_order(numbers):
    seen = []
    wait = Together(lambda p, t, n: (seen.extend(p.tolist()), seen.append(n)), numbers=numbers)
    for i in range(10): wait.add(torch.tensor([float(i)]), torch.tensor([0.]), 1)
    wait.flush()
    wait.flush()
    assert [o for o in seen if isinstance(o, float)]==[float(i) for i in range(10)] and sum(o for o in seen if isinstance(o, int))==10
    wait.add(torch.tensor([1.]), torch.tensor([0.]), 1)
    wait.clear()
    n = len(seen)
    wait.flush()
    assert len(seen)==n

def test_large_outputs_are_not_kept():
    seen = []
    wait = Together(lambda p, t, n: seen.append(n), numbers=20)
    for _ in range(3): wait.add(torch.zeros(11), torch.zeros(11), 11)
    assert seen==[11]*3 and not wait.rows

def test_history():
    h = History()
    assert h.best() is None
    h.note(0, 'train', dict(loss=1.))
    assert h.best() is None
    h.note(0, 'valid', dict(loss=math.inf))
    assert h.best() is None
    h.note(1, 'valid', dict(loss=2., acc=0.5))
    assert h.best()==dict(epoch=1, part='valid', loss=2., acc=0.5)==h.best('acc', max)
    with pytest.raises(ValueError, match="History.best: name must be one of.*Did you mean 'loss'"): h.best('los')

@pytest.mark.parametrize('inp', [torch.randn(8), torch.randn(8, 1)], ids=['[N]', '[N,1]'])
@pytest.mark.parametrize('kind', [Accuracy, TopK])
def test_one_number_an_item_is_no_logit_for_each_class(kind, inp):
    with pytest.raises(ValueError, match='one number an item'): kind().add(inp, torch.arange(8)%2)

def test_topk_wants_logits():
    with pytest.raises(ValueError, match='needs logits'): TopK(2).add(torch.arange(8), torch.arange(8))

def test_bytes_do_not_wrap_around():
    m = MSE()
    m.add(torch.tensor([10], dtype=torch.uint8), torch.tensor([20], dtype=torch.uint8))
    assert m.value==100

def test_a_misspelt_part_is_refused():
    h = History()
    with pytest.raises(ValueError, match='part must be one of train, valid'): h.best(part='validation')
