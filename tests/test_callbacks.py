"Schedules, records, gradients, batches and predictions: what each batch really used, and what is refused."
import random, warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, IterableDataset

import miniai.callbacks as M
from conftest import At
from miniai.callbacks import (BatchSchedCB, BatchTransformCB, CapturePreds, EMACB, EpochSchedCB, GradAccumCB, GradClipCB, MixedPrecisionCB,
                              OneCycleCB, RecorderCB, current_lr)
from miniai.core import set_seed
from miniai.datasets import inplace
from miniai.events import event_names, Order, run_cbs, with_cbs
from miniai.learner import (Callback, CancelBatchException, CancelEpochException, CancelFitException, CancelStepException, DeviceCB,
                            Learner, MetricsCB, MomentumLearner, ReconstructCB, TrainCB)

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
    assert rec.recs['lr']==pytest.approx(rates(make, 6, every))

def test_fits_can_be_repeated_and_may_be_validation_only():
    rec = RecorderCB(lr=current_lr)
    learn = fit([rec, OneCycleCB()], opt_func=partial(optim.SGD, momentum=0.9))
    first = rec.recs['lr']
    learn.fit(2)
    assert rec.recs['lr']==pytest.approx(first)
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
    assert rec.recs['it']==[0.] and len(rec.recs['loss'])==1
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

# --- schedules
def settings(learn): return [{k: v for k, v in g.items() if k!='params'} for g in learn.opt.param_groups]

@pytest.mark.parametrize('event, order', [('before_epoch', 99), ('after_step', 0), ('after_batch', 99), ('after_fit', 0), ('cleanup_fit', -99)])
@pytest.mark.parametrize('make', [OneCycleCB, lambda: BatchSchedCB(partial(ExponentialLR, gamma=0.5)),
                                  lambda: EpochSchedCB(partial(StepLR, step_size=1))])
def test_the_optimizer_gets_its_settings_back(make, event, order):
    learn = fit([], opt_func=partial(optim.SGD, momentum=0.9))
    before = settings(learn)
    try: learn.fit(2, cbs=[make(), At(event, order=order)])
    except KeyboardInterrupt: pass
    assert settings(learn)==before

def test_a_schedule_starts_from_the_rate_of_its_fit():
    rec = RecorderCB(lr=current_lr)
    learn = fit([rec, BatchSchedCB(partial(LambdaLR, lr_lambda=lambda i: 1/(i+1)))], 1)
    for lr in (0.1, 0.3):
        learn.fit(1, lr=lr)
        assert rec.recs['lr']==pytest.approx([lr, lr/2, lr/3])

def test_two_schedules_at_once():
    rec, learn = RecorderCB(lr=current_lr), fit([])
    two = [BatchSchedCB(partial(ExponentialLR, gamma=0.5)), EpochSchedCB(partial(StepLR, step_size=1, gamma=0.1))]
    for cbs in (two, two[::-1]):
        learn.fit(2, cbs=[rec, *cbs])
        assert rec.recs['lr']==pytest.approx([.1, .05, .025, .00125, .000625, .0003125]) and settings(learn)==settings(fit([]))

@pytest.mark.parametrize('opt, moves', [(optim.SGD, False), (partial(optim.SGD, momentum=0.9), True), (optim.Adam, True), (optim.Adagrad, False),
                                        (optim.RMSprop, False)])
def test_one_cycle_moves_only_a_momentum_that_is_there(opt, moves):
    get = lambda learn: (learn.opt.param_groups[0].get('betas') or [learn.opt.param_groups[0].get('momentum', 0)])[0]
    rec = RecorderCB(mom=get)
    fit([OneCycleCB(), rec], opt_func=opt)
    assert (len(set(rec.recs['mom']))>1)==moves

class Unknown(IterableDataset):
    def __iter__(self): return iter(list(zip(X, Y)))

def test_one_cycle_wants_a_length_only_to_train():
    dl = DataLoader(Unknown(), 4)
    with pytest.raises(TypeError, match='has no length'): fit([OneCycleCB()], dls=(dl, dl))
    learn = fit([], dls=(dl, dl))
    learn.fit(1, train=False, cbs=OneCycleCB())
    with pytest.raises(ValueError, match='no optimizer to schedule: give opt_func'): fit([OneCycleCB()], opt_func=None)

# --- gradients
def uneven(seed, n_items=40):
    "Batches of 1 to 6 items, and how many make a group."
    rng, x, y = random.Random(seed), torch.randn(n_items, 3, dtype=torch.float64), torch.randint(0, 2, (n_items,))
    sizes = []
    while sum(sizes)<n_items: sizes.append(min(rng.randint(1, 6), n_items-sum(sizes)))
    return list(zip(x.split(sizes), y.split(sizes))), rng.randint(1, 5)

def joined(batches, n): return [tuple(map(torch.cat, zip(*batches[i:i+n]))) for i in range(0, len(batches), n)]

class NoLength:
    def __init__(self, items): self.items = items
    def __iter__(self): return iter(self.items)

def train(batches, *cbs, n_epochs=2, opt=partial(optim.SGD, momentum=0.9), loader=list, lr=0.1):
    set_seed(0)
    learn = Learner(nn.Linear(3, 2).double(), (loader(batches), None), F.cross_entropy, lr, [TrainCB(), *cbs], opt)
    learn.fit(n_epochs)
    return learn

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

@pytest.mark.parametrize('loader', [list, NoLength])
@pytest.mark.parametrize('opt', [partial(optim.SGD, momentum=0.9), optim.AdamW])
@pytest.mark.parametrize('seed', range(12))
def test_small_batches_equal_a_large_one(seed, opt, loader):
    batches, n = uneven(seed)
    if loader is NoLength: batches = batches[:len(batches)//n*n]     # it cannot know that the epoch ends: half a group is dropped
    large = train(joined(batches, n), GradClipCB(0.3), opt=opt)
    small = train(batches, GradClipCB(0.3), GradAccumCB(n), opt=opt, loader=loader)
    assert torch.allclose(weights(large), weights(small), rtol=0, atol=1e-9)
    assert all(p.grad is None for p in small.model.parameters())

@pytest.mark.parametrize('make', [OneCycleCB, lambda: BatchSchedCB(partial(ExponentialLR, gamma=0.8)), lambda: EpochSchedCB(partial(StepLR, step_size=1))])
@pytest.mark.parametrize('seed', range(4))
def test_schedules_count_steps_and_torch_has_nothing_to_complain(seed, make):
    batches, n = uneven(seed)
    class RateCB(Callback):
        def before_fit(self, learn): self.lrs = []
        def after_step(self, learn): self.lrs.append(current_lr(learn))
    a, b = RateCB(), RateCB()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        large, small = train(joined(batches, n), make(), a, n_epochs=3), train(batches, make(), GradAccumCB(n), b, n_epochs=3)
        if make is not OneCycleCB: train(batches, make(), GradAccumCB(n), loader=NoLength)
    assert a.lrs==pytest.approx(b.lrs) and torch.allclose(weights(large), weights(small), atol=1e-9)

def test_others_see_the_whole_gradient_and_their_own_loss():
    batches, norms, losses = uneven(3)[0], [], []
    class SeeCB(Callback):
        order = 5
        def after_batch(self, learn): losses.append((learn.loss.item(), F.cross_entropy(learn.preds, learn.targs).item()))
        def after_step(self, learn): norms.append(clip.norm.item())
    clip = GradClipCB(1e-3)
    train(batches, clip, SeeCB(), GradAccumCB(3), n_epochs=1)
    small = norms.copy()
    norms.clear()
    train(joined(batches, 3), clip, SeeCB(), n_epochs=1)
    assert small==pytest.approx(norms) and all(a==b for a, b in losses)

def test_one_batch_a_group_changes_nothing():
    batches = uneven(1)[0]
    assert torch.equal(weights(train(batches)), weights(train(batches, GradAccumCB(1))))

@pytest.mark.parametrize('exc', [CancelEpochException, CancelFitException, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize('event', sorted(event_names - {'before_fit', 'after_fit', 'cleanup_fit', 'after_epoch', 'cleanup_epoch'} ))
def test_half_a_group_is_dropped(event, exc):
    nth = 2 if event=='after_step' else 6     # in the second group of four
    batches, steps = uneven(5)[0], []
    class CountCB(Callback):
        order = -99
        def after_step(self, learn): steps.append(weights(learn).clone())
    learn = train(batches, GradAccumCB(4), CountCB(), n_epochs=0)
    try: learn.fit(1, cbs=At(event, exc, nth=nth, order=-1))
    except (exc, CancelFitException): pass
    assert all(p.grad is None for p in learn.model.parameters())
    assert torch.equal(weights(learn), steps[-1])
    again = train(batches, n_epochs=0)                      # what it does next is what anybody would do from there
    again.model.load_state_dict(learn.model.state_dict())
    learn.opt = again.opt = None
    learn.fit(1)
    again.fit(1, cbs=GradAccumCB(4))
    assert torch.equal(weights(learn), weights(again))

def test_a_skipped_batch_does_not_count():
    batches = uneven(7)[0]
    class SkipCB(Callback):
        order = 3
        def after_loss(self, learn):
            if learn.iter%3==1: raise CancelBatchException()
    batches = batches[:9]                                   # the last one is not skipped, so it closes the group
    left = [b for i, b in enumerate(batches) if i%3!=1]
    assert torch.allclose(weights(train(batches, SkipCB(), GradAccumCB(2))), weights(train(joined(left, 2))), atol=1e-9)

@pytest.mark.parametrize('drop', [False, True], ids=['kept', 'dropped'])
def test_a_step_that_another_cancels(drop):
    batches = [(torch.randn(k, 3, dtype=torch.float64), torch.zeros(k, dtype=torch.int64)) for k in (2, 4, 3, 1, 5, 2)]
    class RefuseCB(Callback):
        order = 1
        def after_backward(self, learn):
            if learn.iter==1:
                if drop: learn.opt.zero_grad()
                raise CancelStepException()
    want = joined(batches[2:], 2) if drop else [tuple(map(torch.cat, zip(*batches[:3]))), *joined(batches[3:], 2)]
    got = train(batches, GradAccumCB(2), RefuseCB(), n_epochs=1)
    assert torch.allclose(weights(got), weights(train(want, n_epochs=1)), atol=1e-9)

def test_validation_takes_no_part():
    batches = uneven(2)[0]
    learn = train(batches, n_epochs=0)
    learn.dls = (batches, batches)
    learn.fit(2, cbs=GradAccumCB(3))
    assert torch.allclose(weights(learn), weights(train(joined(batches, 3))), atol=1e-9)
    before = weights(learn).clone()
    learn.fit(2, train=False, cbs=GradAccumCB(3))
    learn.fit(0, cbs=GradAccumCB(3))
    assert torch.equal(before, weights(learn))

def test_lr_find_does_not_accumulate():
    batches = uneven(4)[0]
    a, b = train(batches), train(batches, n_epochs=0)
    b.cbs.append(GradAccumCB(3))
    b.model.load_state_dict(a.model.state_dict())
    before = weights(b).clone()
    assert a.lr_find().losses==b.lr_find().losses and torch.equal(before, weights(b))

def test_averages_count_steps():
    batches, n = uneven(6)
    assert torch.allclose(weights(train(batches, EMACB(0.5), GradAccumCB(n))), weights(train(joined(batches, n), EMACB(0.5))), atol=1e-9)

def test_accumulation_refuses():
    for bad, exc in ((0, ValueError), (2.5, TypeError)):
        with pytest.raises(exc, match='GradAccumCB: n must'): GradAccumCB(bad)
    learn = MomentumLearner(nn.Linear(3, 2), ([(X, Y)], None), F.cross_entropy, cbs=GradAccumCB(2))
    with pytest.raises(TypeError, match='MomentumLearner.*momentum=0.9'): learn.fit(1)

def test_accumulation_with_scaled_gradients():
    batches = [(x.float(), y) for x, y in uneven(8, 400)[0]]
    half = MixedPrecisionCB(torch.float16, scaler=torch.amp.GradScaler('cpu', init_scale=2.**40))
    set_seed(0)
    learn = Learner(nn.Linear(3, 2), (batches, None), F.cross_entropy, 0.1, [half, GradAccumCB(3), TrainCB()])
    steps = []
    class CountCB(Callback):
        def after_step(self, learn): steps.append(learn.iter)
    learn.fit(2, cbs=CountCB())
    assert half.skipped>0 and len(steps)>0 and weights(learn).isfinite().all()

# --- batches
@pytest.mark.parametrize('train, valid', [(True, False), (False, True), (True, True), (False, False)])
def test_the_chosen_batches_are_changed(train, valid):
    seen = []
    class SeeCB(Callback):
        def before_batch(self, learn): seen.append((learn.training, torch.equal(learn.batch[0], -X)))
    learn = fit([], dls=([(X, Y)], [(X, Y)]))
    learn.fit(1, cbs=[SeeCB(), BatchTransformCB(lambda b: (-b[0], b[1]), train, valid), DeviceCB('cpu')])
    assert seen==[(True, train), (False, valid)] and torch.equal(learn.dls[0][0][0], X)

def test_a_transform_may_change_the_form():
    as_dict = BatchTransformCB(lambda b: dict(x=b[0], y=b[1]), on_val=True)
    a, b = fit([]), fit([as_dict])
    assert torch.equal(weights(a), weights(b))

def test_a_transform_in_place():
    @inplace
    def shift(batch): batch[0].add_(1)
    def forgot(batch): batch[0].add_(1)
    fit([BatchTransformCB(shift)], dls=([[X.clone(), Y]], None))
    with pytest.raises(TypeError, match='forgot gave None.*datasets.inplace'): fit([BatchTransformCB(forgot)], dls=([[X.clone(), Y]], None))
    with pytest.raises(TypeError, match='take and give a batch, got float32'): BatchTransformCB(X)

# --- predictions
def test_predictions_of_uneven_batches():
    dl = list(zip(X.split(5), Y.split(5)))
    learn, cp = fit([], dls=(dl, dl)), CapturePreds()
    learn.fit(1, train=False, cbs=cp)
    assert torch.equal(cp.all_inps, X) and torch.equal(cp.all_targs, Y) and torch.equal(cp.all_preds, learn.model(X)) and not cp.all_preds.requires_grad
    learn.fit(2, cbs=cp)                                    # the last pass is the validation
    assert torch.equal(cp.all_preds, learn.model(X))
    other = CapturePreds(False, None)
    learn.fit(1, train=False, cbs=other)
    assert torch.equal(other.all_preds, cp.all_preds) and other.all_inps is None

def test_predictions_of_any_form():
    class Forms(nn.Linear):
        def forward(self, x): return dict(a=super().forward(x), b=(x.sum(1), [x]))
    dl = [dict(image=x) for x in X.split(5)]
    cp = CapturePreds()
    learn = Learner(Forms(3, 3), (dl, dl), lambda p, t: (p['a']-t).square().mean(), cbs=[ReconstructCB(lambda x: 0*x)])
    learn.fit(1, train=False, cbs=cp)
    assert torch.equal(cp.all_preds['a'], learn.model(0*X)['a']) and torch.equal(cp.all_preds['b'][1][0], 0*X)
    assert torch.equal(cp.all_targs, X) and torch.equal(cp.all_inps, X)

def test_a_loader_that_fills_the_same_tensor():
    class Same:
        def __iter__(self):
            x, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
            for i in range(3):
                x.fill_(i)
                y.fill_(i%2)
                yield x, y
    cp = CapturePreds()
    Learner(nn.Linear(3, 2), (Same(), Same()), F.cross_entropy, cbs=[TrainCB(), cp]).fit(1, train=False)
    assert cp.all_inps[:,0].tolist()==[0, 0, 1, 1, 2, 2] and cp.all_targs.tolist()==[0, 0, 1, 1, 0, 0]

def test_a_broken_pass_leaves_what_there_was():
    dl = list(zip(X.split(5), Y.split(5)))
    learn, cp = fit([], dls=(dl, dl)), CapturePreds()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, train=False, cbs=[cp, At('after_loss', nth=3)])
    assert torch.equal(cp.all_targs, Y[:10]) and not cp.parts
    with pytest.raises(KeyboardInterrupt): learn.fit(1, train=False, cbs=[cp, At('after_loss')])
    assert cp.all_targs is None
    learn.fit(1, train=False, cbs=cp)
    learn.cbs.append(cp)
    preds = cp.all_preds
    learn.look()
    learn.lr_find()
    assert cp.all_preds is preds

# --- learners of other people: the attributes of the course, and no more
class CourseLearner:
    "A loop like that of the fast.ai course: no targs, loader, history, handlers."
    def __init__(self, model, dls, loss_func, lr=0.1, cbs=(), opt_func=optim.SGD):
        self.model, self.dls, self.loss_func = model, dls, loss_func
        self.lr, self.cbs, self.opt_func = lr, list(cbs), opt_func
    @with_cbs('batch')
    def _one_batch(self):
        self.callback('predict')
        self.callback('after_predict')
        self.callback('get_loss')
        self.callback('after_loss')
        if not self.training: return
        try:
            self.callback('backward')
            self.callback('after_backward')
            self.callback('step')
            self.callback('after_step')
            self.callback('zero_grad')
        except CancelStepException: pass
    @with_cbs('epoch')
    def _one_epoch(self):
        for self.iter, self.batch in enumerate(self.dl): self._one_batch()
    def one_epoch(self, training):
        self.model.train(training)
        self.dl = self.dls.train if training else self.dls.valid
        with torch.set_grad_enabled(training): self._one_epoch()
    @property
    def training(self): return self.model.training
    @with_cbs('fit')
    def _fit(self):
        for self.epoch in self.epochs:
            self.one_epoch(True)
            self.one_epoch(False)
    def fit(self, n_epochs=1):
        self.n_epochs, self.epochs = n_epochs, range(n_epochs)
        self.opt = self.opt_func(self.model.parameters(), self.lr)
        self._fit()
    def callback(self, nm): run_cbs(self.cbs, nm, self)

def course(*cbs, n_epochs=2):
    set_seed(0)
    dl = list(zip(X.split(5), Y.split(5)))
    learn = CourseLearner(nn.Linear(3, 2), SimpleNamespace(train=dl, valid=dl), F.cross_entropy, cbs=[*cbs],
                          opt_func=partial(optim.SGD, momentum=0.9))
    learn.fit(n_epochs)
    return learn

alone = dict(
    TrainCB=lambda path: [], DeviceCB=lambda path: [M.DeviceCB('cpu')], MetricsCB=lambda path: [MetricsCB(acc=lambda p, t: (p.argmax(1)==t).float().mean())],
    ProgressCB=lambda path: [MetricsCB(), M.ProgressCB()], SingleBatchCB=lambda path: [M.SingleBatchCB()], LRFinderCB=lambda path: [M.LRFinderCB()],
    LossTermCB=lambda path: [M.LossTermCB(lambda learn: learn.preds.square().mean())], NaNStopCB=lambda path: [M.NaNStopCB()],
    WatchCB=lambda path: [MetricsCB(), M.WatchCB()], EarlyStopCB=lambda path: [MetricsCB(), M.EarlyStopCB(1)],
    SaveBestCB=lambda path: [MetricsCB(), M.SaveBestCB(path/'best.safetensors', restore=True)], EMACB=lambda path: [EMACB()],
    HasLearnCB=lambda path: [M.HasLearnCB()], RecorderCB=lambda path: [RecorderCB(lr=lambda cb: cb.pg['lr'], loss=lambda learn: learn.loss)],
    BatchSchedCB=lambda path: [BatchSchedCB(partial(ExponentialLR, gamma=0.9))], EpochSchedCB=lambda path: [EpochSchedCB(partial(StepLR, step_size=1))],
    OneCycleCB=lambda path: [OneCycleCB()], GradClipCB=lambda path: [GradClipCB()], GradAccumCB=lambda path: [GradAccumCB(2)],
    BatchTransformCB=lambda path: [BatchTransformCB(lambda b: (-b[0], b[1]))], CapturePreds=lambda path: [CapturePreds()],
    ReconstructCB=None)
need_around = dict(TimeCB=lambda: M.TimeCB(), MixedPrecisionCB=lambda: MixedPrecisionCB(), MixedPrecision=lambda: M.MixedPrecision(),
                   CompileCB=lambda: M.CompileCB(backend='eager'))

def test_every_callback_is_tried_with_a_foreign_learner():
    classes = {k for k in M.__all__ if isinstance(getattr(M, k), type) and issubclass(getattr(M, k), Callback)}
    assert classes - {'Callback', 'BaseSchedCB'} == {*alone, *need_around}

@pytest.mark.parametrize('name', [k for k, v in alone.items() if v])
def test_callbacks_serve_a_foreign_learner(name, tmp_path):
    cbs = alone[name](tmp_path)
    learn = course(TrainCB(), *cbs)
    assert not hasattr(learn, 'handlers')
    if 'Sched' in name or name=='OneCycleCB': assert settings(learn)==settings(course(TrainCB()))          # settings are given back
    if name=='MetricsCB': assert [(r['epoch'], r['part']) for r in cbs[0].history]==[(i, p) for i in (0, 1) for p in ('train', 'valid')]
    if name=='CapturePreds': assert torch.equal(cbs[0].all_targs, Y) and torch.equal(cbs[0].all_inps, X)
    if name=='SaveBestCB': assert (tmp_path/'best.safetensors').exists()
    if name=='RecorderCB': assert len(cbs[0].recs['lr'])==6

def test_a_foreign_learner_reconstructs():
    set_seed(0)
    dl = [X, X]
    learn = CourseLearner(nn.Linear(3, 3), SimpleNamespace(train=dl, valid=dl), F.mse_loss, cbs=[ReconstructCB(), MetricsCB()])
    learn.fit(1)
    assert learn.loss>0

@pytest.mark.parametrize('name', need_around)
def test_who_needs_handlers_says_so(name):
    usual = [] if name=='MixedPrecision' else [TrainCB()]
    with pytest.raises(TypeError, match=f'{name} needs to come around other callbacks, and CourseLearner has no handlers'):
        course(*usual, need_around[name]())
    assert not torch.is_autocast_enabled('cpu')

def test_schedules_of_a_foreign_learner_are_those_of_torch():
    rec = RecorderCB(lr=lambda cb: cb.pg['lr'])
    course(TrainCB(), OneCycleCB(), rec)
    assert rec.recs['lr']==pytest.approx(rates(lambda opt: OneCycleLR(opt, 0.1, total_steps=6, pct_start=0.25), 6))

# --- a generator of fresh batches, groups, scaling
def test_a_scaler_and_groups_make_the_steps_of_one_big_batch():
    batches = [(torch.randn(k, 3), torch.randint(0, 2, (k,))) for k in (4, 4, 2, 3, 4, 1, 2)]
    def half(): return MixedPrecisionCB(torch.float16, scaler=torch.amp.GradScaler('cpu', init_scale=1024., growth_interval=10**6))
    def run(bs, *cbs):
        set_seed(0)
        learn = Learner(nn.Linear(3, 2), (bs, None), F.cross_entropy, 0.1, [TrainCB(), *cbs], partial(optim.SGD, momentum=0.9))
        learn.fit(3)
        return weights(learn)
    exact = run(joined(batches, 3), GradClipCB(0.3))
    assert torch.allclose(run(batches, half(), GradAccumCB(3), GradClipCB(0.3)), exact, atol=2e-3)

def test_a_skipped_step_of_a_group_leaves_no_trace():
    "The scaler drops a group that has overflowed; the next group counts only its own items."
    batches = [(torch.randn(k, 3, dtype=torch.float64), torch.randint(0, 2, (k,))) for k in (4, 2, 3, 1, 2, 5)]
    class DropCB(Callback):
        order = Order.half
        def after_backward(self, learn):
            if learn.iter!=1: return
            learn.opt.zero_grad()
            raise CancelStepException()
    got = train(batches, GradAccumCB(2), DropCB(), n_epochs=1)
    assert torch.allclose(weights(got), weights(train(joined(batches[2:], 2), n_epochs=1)), atol=1e-9)

def test_all_callbacks_are_found_in_one_place():
    for o in ('EarlyStopCB', 'EMACB', 'NaNStopCB', 'SaveBestCB', 'WatchCB', 'TimeCB', 'MixedPrecisionCB', 'CompileCB'):
        assert o in M.__all__ and hasattr(M, o)

# --- a fit inside a fit, short fits, odd loaders and rates

class JudgeCB(Callback):
    "After each epoch of training, judge by a fit of its own."
    order = 50
    def after_epoch(self, learn):
        if learn.training: learn.fit(1, train=False)

@pytest.mark.parametrize('make', [lambda: RecorderCB(lr=current_lr), OneCycleCB, EMACB, partial(GradAccumCB, 2)],
                         ids=['records', 'one cycle', 'average', 'groups'])
def test_a_fit_inside_leaves_what_callbacks_noted(make):
    def run(*more):
        cb, rec = make(), RecorderCB(loss=lambda learn: learn.loss, lr=current_lr)
        learn = fit([cb, rec, *more], 4, opt_func=partial(optim.SGD, momentum=0.9))
        return rec.recs, getattr(cb, 'recs', None), learn.model.weight.tolist()
    assert run(JudgeCB())==run()

@pytest.mark.parametrize('n', range(1, 11))
@pytest.mark.parametrize('pct', [0, 0.1, 0.125, 0.25, 0.5, 0.99])
def test_a_cycle_of_any_length_is_finite(n, pct):
    rec = RecorderCB(lr=current_lr)
    fit([OneCycleCB(pct), rec], 1, dls=([(X, Y)]*n,), opt_func=partial(optim.SGD, momentum=0.9))
    assert len(rec.recs['lr'])==n and all(0<lr<=0.1*(1+1e-6) for lr in rec.recs['lr'])

@pytest.mark.parametrize('pct', [-0.1, 1, 1.5])
def test_a_cycle_must_have_time_to_fall(pct):
    with pytest.raises(ValueError, match='below 1'): OneCycleCB(pct)

def test_a_record_is_one_number_and_says_so_at_once():
    rec = RecorderCB(grad=lambda learn: learn.preds)
    with pytest.raises(ValueError, match=r'grad must give one number, got float32 \[4,2\]'): fit([rec])
    rec = RecorderCB(mixed=lambda learn: learn.loss if learn.iter else 7)
    fit([rec], 1)
    assert rec.recs['mixed'][0]==7 and all(type(o) is float for o in rec.recs['mixed'])

def test_groups_from_a_loader_that_does_not_know_its_end():
    class Rows(IterableDataset):
        def __iter__(self): return iter(zip(X, Y))
    class CountCB(Callback):
        n = 0
        def after_step(self, learn): self.n += 1
    count = CountCB()
    fit([GradAccumCB(2), count], 1, dls=(DataLoader(Rows(), 4),))
    assert count.n==1                                            # three batches: one group, and one batch that is dropped

def test_a_rate_that_is_a_tensor_comes_back():
    model = nn.Linear(3, 2)
    learn = Learner(model, ([(X, Y)]*8,), F.cross_entropy, cbs=[TrainCB(), OneCycleCB()])
    learn.opt = optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    for _ in range(2):
        learn.fit(1)
        assert learn.opt.param_groups[0]['lr'].item()==pytest.approx(0.1)
