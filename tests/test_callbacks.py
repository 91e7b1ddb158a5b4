"Schedules, records and clipping: what each batch really used, and what is refused."
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, StepLR

from miniai.callbacks import BatchSchedCB, EpochSchedCB, GradClipCB, OneCycleCB, RecorderCB, current_lr
from miniai.core import set_seed
from miniai.learner import Learner, MetricsCB, TrainCB

X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12)%2
def fit(cbs, n_epochs=2, lr=0.1, dls=None, **kw):
    set_seed(0)
    learn = Learner(nn.Linear(3, 2), dls or ([(X[i:i+4], Y[i:i+4]) for i in (0, 4, 8)], [(X, Y)]), F.cross_entropy, lr, [TrainCB(), *cbs], **kw)
    learn.fit(n_epochs)
    return learn

def rates(make, n_steps, step_every=1):
    "What torch's own scheduler gives, batch by batch."
    opt = optim.SGD([torch.zeros(1, requires_grad=True)], 0.1, momentum=0.9)
    sched, res = make(opt), []
    for i in range(n_steps):
        res.append(opt.param_groups[0]['lr'])
        opt.step()
        if (i+1)%step_every==0 and i+1<n_steps: sched.step()
    return res

@pytest.mark.parametrize('order', [1, -1], ids=['recorder first', 'scheduler first'])
@pytest.mark.parametrize('cb, make, every', [
    (BatchSchedCB(partial(ExponentialLR, gamma=0.9)), partial(ExponentialLR, gamma=0.9), 1),
    (EpochSchedCB(partial(StepLR, step_size=1, gamma=0.5)), partial(StepLR, step_size=1, gamma=0.5), 3),
    (OneCycleCB(), lambda opt: OneCycleLR(opt, 0.1, total_steps=6, pct_start=0.25), 1)], ids=['batch', 'epoch', 'one cycle'])
def test_each_batch_uses_the_rate_that_torch_gives(cb, make, every, order):
    rec = RecorderCB(lr=current_lr)
    fit([rec, cb][::order], opt_func=partial(optim.SGD, momentum=0.9))
    assert rec.records['lr']==pytest.approx(rates(make, 6, every))

def test_fits_can_be_repeated_and_may_be_validation_only():
    rec = RecorderCB(lr=current_lr)
    learn = fit([rec, OneCycleCB()], opt_func=partial(optim.SGD, momentum=0.9))
    first = rec.records['lr']
    learn.fit(2)
    assert rec.records['lr']==pytest.approx(first)
    learn.fit(1, train=False)
    learn.fit(0)

def test_lr_find_ignores_a_schedule(monkeypatch):
    learn = fit([OneCycleCB(), MetricsCB()], 1)
    found = learn.lr_find(start_lr=1e-4, gamma=2)
    assert found.lrs[:3]==pytest.approx([1e-4, 2e-4, 4e-4])

def test_records_survive_an_interrupted_fit():
    rec = RecorderCB(loss=lambda learn: learn.loss, it=lambda learn: learn.iter)
    def loader():
        yield X, Y
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fit([rec], dls=(loader(), None))
    assert rec.records['it']==[0.] and len(rec.records['loss'])==1
    axs = rec.plot()
    assert [ax.get_title() for ax in axs]==['loss', 'it']

def test_clipping_limits_the_norm():
    seen = []
    class NormCB(RecorderCB):
        order = 100
        def after_batch(self, learn): pass
        def after_backward(self, learn): seen.append(torch.stack([p.grad.norm() for p in learn.model.parameters()]).norm().item())
    fit([GradClipCB(1e-3), NormCB(x=len)])
    assert seen and max(seen)<=1e-3*(1+1e-4)

@pytest.mark.parametrize('f, exc', [(lambda: RecorderCB(), ValueError), (lambda: BatchSchedCB(0.9), TypeError), (lambda: OneCycleCB(2), ValueError),
                                    (lambda: GradClipCB(0), ValueError), (lambda: fit([OneCycleCB()], dls=(iter([(X, Y)]), None)), TypeError)])
def test_bad_arguments(f, exc):
    with pytest.raises(exc): f()
