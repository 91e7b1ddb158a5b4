"TimeCB counts every moment once, MixedPrecisionCB and CompileCB leave nothing behind, whatever happens in a fit."
import copy, warnings
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch._dynamo.backends.common import aot_autograd

from miniai import speed
from miniai.core import set_seed
from miniai.events import (Callback, CancelBatchException, CancelEpochException, CancelFitException, CancelStepException)
from miniai.learner import DeviceCB, Learner, LossTermCB, MomentumLearner, TrainCB, TrainLearner
from miniai.metrics import Accuracy
from miniai.progress import MetricsCB
from miniai.accel import MixedPrecisionCB
from miniai.speed import CompileCB, CPUClock, CUDAClock, Stopwatch, TimeCB, parts, plot_times

batch_events = ['before_batch', 'after_predict', 'after_loss', 'after_backward', 'after_step', 'after_batch']

def batches(n=4, bs=8): return [(torch.randn(bs, 5, generator=(g := torch.Generator().manual_seed(i))),
                                 torch.randint(0, 3, (bs,), generator=g)) for i in range(n)]
def get_model():
    set_seed(1)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
def get_learner(*cbs, dls=None, model=None, lr=0.1, **kwargs):
    cbs = [TrainCB(), DeviceCB('cpu'), *cbs]
    return Learner(model or get_model(), dls or (batches(), batches(2)), F.cross_entropy, lr, cbs, **kwargs)
def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

class RaiseCB(Callback):
    "Raise something at an event."
    def __init__(self, event, exc, order=0, when=lambda learn: learn.training and learn.iter==1):
        self.order = order
        def act(learn):
            if when(learn): raise exc
        setattr(self, event, act)

class DoCB(Callback):
    "Call a function at events."
    def __init__(self, f, *events, order=0):
        self.order = order
        for o in events: setattr(self, o, f)

# --- TimeCB, on a clock that moves only when somebody works, and remembers who did
costs = dict(data=64, transfer=32, forward=16, backward=4, step=2, callbacks=1)

class Ticks(CPUClock):
    def __init__(self): self.t, self.truth = 0, dict.fromkeys(parts, 0)
    def now(self): return self.t
    def work(self, part, times=1):
        self.t += times*costs[part]
        self.truth[part] += times*costs[part]

class TickLearner(Learner):
    def predict(self): self.clock.work('forward')
    def get_loss(self): self.clock.work('forward')
    def backward(self): self.clock.work('backward')
    def step(self): self.clock.work('step')
    def zero_grad(self): self.clock.work('step')
class TickTrainCB(Callback):
    def predict(self, learn): TickLearner.predict(learn)
    def get_loss(self, learn): TickLearner.get_loss(learn)
    def backward(self, learn): TickLearner.backward(learn)
    def step(self, learn): TickLearner.step(learn)
    def zero_grad(self, learn): TickLearner.zero_grad(learn)
class TickDeviceCB(DeviceCB):
    def before_batch(self, learn): learn.clock.work('transfer')
class TickLoader:
    def __init__(self, clock, n): self.clock, self.n = clock, n
    def __iter__(self):
        for i in range(self.n):
            self.clock.work('data')
            yield torch.zeros(2, 1)
        self.clock.work('data', 10)                             # shutting down takes time too

def tick_learner(*cbs, n=3, cls=TickLearner, listen=batch_events, **kwargs):
    clock = Ticks()
    timer = TimeCB(clock=clock, **dict(show=False) | kwargs)
    busy = DoCB(lambda learn: clock.work('callbacks'), *listen, order=-1)
    learn = cls(nn.Linear(1, 1), (TickLoader(clock, n), TickLoader(clock, 2)), cbs=[TickDeviceCB('cpu'), busy, timer, *cbs])
    learn.clock = clock
    return learn, timer, clock

def total(timer): return sum(sum(v.values()) for v in timer.seconds.values())
def by_part(timer): return {k: sum(v[k] for v in timer.seconds.values()) for k in parts}

@pytest.mark.parametrize('cls, extra', [(TickLearner, ()), (Learner, (TickTrainCB(),))])
@pytest.mark.parametrize('listen', [batch_events, [], ['after_loss']])
def test_every_part_is_exact(cls, extra, listen):
    learn, timer, clock = tick_learner(*extra, cls=cls, listen=listen)
    learn.fit(2)
    k = sum(o in batch_events for o in listen)
    assert timer.seconds['train'] == dict(data=2*13*64, transfer=6*32, forward=6*32, backward=6*4, step=6*4, callbacks=6*k)
    k = sum(o in listen for o in ('before_batch', 'after_predict', 'after_loss', 'after_batch'))
    assert timer.seconds['valid'] == dict(data=2*12*64, transfer=4*32, forward=4*32, backward=0, step=0, callbacks=4*k)
    assert by_part(timer) == clock.truth and total(timer) == clock.t

@pytest.mark.parametrize('exc', [CancelBatchException, CancelEpochException, CancelFitException])
@pytest.mark.parametrize('event', batch_events)
@pytest.mark.parametrize('order', [-20, 5])
def test_nothing_is_lost_if_somebody_cancels(event, exc, order):
    learn, timer, clock = tick_learner(RaiseCB(event, exc(), order))
    learn.fit(2)
    assert by_part(timer) == clock.truth and clock.truth['forward'] and learn.handlers is None

@pytest.mark.parametrize('order, callbacks', [(-20, 0), (5, 1)])
def test_a_step_put_off_is_no_step(order, callbacks):
    learn, timer, clock = tick_learner(RaiseCB('after_backward', CancelStepException(), order, when=lambda learn: True))
    learn.fit(1)
    assert timer.seconds['train']['step'] == 0 and total(timer) == clock.t
    assert timer.seconds['train']['callbacks'] == 3*(4 + callbacks)         # before_batch, predict, loss, batch; and backward

@pytest.mark.parametrize('exc', [ValueError('no'), KeyboardInterrupt()])
@pytest.mark.parametrize('event', [*batch_events, 'before_epoch', 'after_epoch', 'after_fit',
                                   'cleanup_batch', 'cleanup_epoch', 'cleanup_fit'])
def test_errors_leave_a_sum_that_is_right(event, exc):
    learn, timer, clock = tick_learner(RaiseCB(event, exc, when=lambda learn: True))
    with pytest.raises(type(exc)): learn.fit(2)
    assert by_part(timer) == clock.truth and learn.handlers is None and len(learn.cbs) == 4

class FailingLoader:
    def __init__(self, clock): self.clock = clock
    def __iter__(self):
        self.clock.work('data')
        raise ZeroDivisionError()
        yield

@pytest.mark.parametrize('where', ['model', 'loader'])
def test_errors_of_model_and_loader(where):
    learn, timer, clock = tick_learner()
    if where=='loader': learn.dls = FailingLoader(clock), None
    else: learn.get_loss = lambda: clock.work('forward') or 1/0
    with pytest.raises(ZeroDivisionError): learn.fit(1)
    assert by_part(timer) == clock.truth and clock.truth['data'] and learn.handlers is None

@pytest.mark.parametrize('event', ['before_fit', 'after_epoch', 'before_batch', 'after_loss', 'cleanup_batch'])
def test_a_fit_inside_a_fit_is_time_of_a_callback(event, capsys):
    inner_total = []
    def inner(learn):
        if learn.inside: return
        learn.inside, start = True, clock.t
        learn.fit(1, valid=False)
        inner_total.append(clock.t - start)
        learn.inside = False
    learn, timer, clock = tick_learner(DoCB(inner, event, order=1), listen=[], show=True)
    learn.inside = False
    learn.fit(1, valid=False)
    expected = dict(data=13*64, transfer=96, forward=96, backward=12, step=12)
    before = event=='before_fit'                                        # before any epoch, so it is in none
    assert timer.seconds['train'] == expected | dict(callbacks=0 if before else sum(inner_total))
    assert total(timer) == clock.t - (sum(inner_total) if before else 0) and capsys.readouterr().out.count('total') == len(inner_total)+1

def test_each_fit_starts_at_zero_and_two_stopwatches_agree():
    learn, timer, clock = tick_learner()
    learn.cbs.append(other := TimeCB(show=False, clock=clock))
    learn.fit(3)
    learn.fit(1, valid=False)
    assert timer.seconds == other.seconds and list(timer.timed()) == ['train']
    assert timer.seconds['train']['data'] == 13*64

def test_a_generator_serves_as_loader():
    learn, timer, clock = tick_learner()
    learn.dls = (iter(TickLoader(clock, 5)), None)
    learn.fit(1)
    assert timer.seconds['train']['data'] == 15*64 and list(timer.timed()) == ['train']

def test_long_epochs_are_summed_on_the_way(monkeypatch):
    most, sum_up = [], Stopwatch.sum_up
    def spy(self, learn, least=0):
        most.append(len(self.laps))
        sum_up(self, learn, least)
    monkeypatch.setattr(Stopwatch, 'sum_up', spy)
    learn, timer, clock = tick_learner(n=1500, listen=[])
    learn.fit(1)
    assert max(most) < 10_100 < 1500*7 and total(timer) == clock.t and by_part(timer) == clock.truth

def test_the_sum_is_the_wall_clock():
    import time
    class SlowModel(nn.Linear):
        def forward(self, x):
            time.sleep(0.004)
            return super().forward(x)
    for cls, cbs in ((Learner, [TrainCB()]), (TrainLearner, [])):
        timer = TimeCB(show=False)
        learn = cls(SlowModel(5, 3), (batches(20), batches(5)), F.cross_entropy, cbs=[*cbs, timer])
        start = time.perf_counter()
        learn.fit(1)
        wall = time.perf_counter() - start
        assert 0.8*wall < total(timer) <= wall and timer.seconds['train']['forward'] >= 0.08

def test_timing_changes_no_bit_and_searching_is_not_timed(capsys):
    timer = TimeCB()
    a, b = get_learner(), get_learner(timer)
    for learn in (a, b): learn.fit(2)
    assert torch.equal(weights(a), weights(b))
    seconds = timer.seconds
    capsys.readouterr()
    b.look()
    assert timer.seconds is seconds and not capsys.readouterr().out

# --- the clock of a GPU
class FakeEvent:
    log = []
    def __init__(self, enable_timing): assert enable_timing
    def record(self, stream=None):
        self.t, self.stream = FakeEvent.clock.t, stream
        FakeEvent.log.append('record')
    def synchronize(self): FakeEvent.log.append('synchronize')
    def elapsed_time(self, later): return (later.t - self.t)*1000.

def test_gpu_events_are_read_once_an_epoch():
    FakeEvent.log = []
    learn, timer, clock = tick_learner()
    FakeEvent.clock, timer.clock = clock, CUDAClock(event=FakeEvent)
    learn.fit(2)
    assert FakeEvent.log.count('synchronize') == 4 and 'record' not in FakeEvent.log[-1:]         # two trained, two judged
    assert by_part(timer) == pytest.approx(clock.truth)

def test_clock_follows_the_model(monkeypatch):
    assert type(speed._clock_for(nn.Linear(1, 1))) is CPUClock and type(speed._clock_for(nn.Flatten())) is CPUClock
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: f'stream of {device}')
    fake = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(is_cuda=True, device='cuda:1')]))
    clock = speed._clock_for(fake)
    assert isinstance(clock, CUDAClock) and clock.stream == 'stream of cuda:1' and clock.event is torch.cuda.Event
    clock.event, FakeEvent.clock = FakeEvent, Ticks()
    assert clock.now().stream == 'stream of cuda:1' and clock.spans([]) == []

# --- what it says
@pytest.mark.parametrize('part, words', [
    ('data', 'DataLoaders.from_tensors'), ('transfer', 'pin_memory'), ('forward', 'the model is the limit'),
    ('backward', 'CompileCB'), ('step', 'optimizer'), ('callbacks', 'leave them out')])
def test_advice(part, words):
    timer = TimeCB()
    timer.seconds = dict(train=dict.fromkeys(parts, 1.) | {part: 15.}, valid=dict.fromkeys(parts, 0.))
    assert words in timer.advice() and timer.advice().startswith('80%' if part in ('forward', 'backward') else '75%')
    assert f'{part:10}   15.000 s  75.0%' in repr(timer) and 'valid' not in repr(timer)

def test_advice_on_a_fit_that_only_judges(capsys):
    learn, timer, clock = tick_learner(show=True)
    learn.fit(1, train=False)
    out = capsys.readouterr().out
    assert list(timer.timed()) == ['valid'] and 'waits for data' in out and 'train' not in out

def test_nothing_timed(capsys):
    timer = TimeCB()
    assert repr(timer) == 'TimeCB()'
    with pytest.raises(ValueError, match='no epoch was timed'): timer.advice()
    with pytest.raises(ValueError, match='no times to draw'): timer.plot()
    get_learner(timer).fit(0)
    with pytest.raises(ValueError): get_learner(timer, RaiseCB('before_fit', ValueError(), -99, when=lambda learn: True)).fit(1)
    assert not capsys.readouterr().out

@pytest.mark.parametrize('share', [False, True])
def test_plot(share):
    import matplotlib.pyplot as plt
    rows = dict(a=dict(zip(parts, (1., 2, 3, 4, 5, 5))), b=dict(zip(parts, (0., 0, 1, 0, 0, 1))))
    ax = plot_times(rows, share=share)
    widths = [[p.get_width() for p in bars] for bars in ax.containers]
    assert [sum(o) for o in zip(*widths)] == pytest.approx([1, 1] if share else [20, 2])
    for bars, after in pairwise(ax.containers):
        for p, q in zip(bars, after): assert p.get_x() + p.get_width() == pytest.approx(q.get_x())
    texts = [o.get_text() for o in ax.texts]
    assert '25%' in texts and ('50%' in texts) == share                 # the short bar has no room for text
    plt.close('all')

# --- MixedPrecisionCB
def on(): return torch.is_autocast_enabled('cpu')

@pytest.mark.parametrize('cls', [Learner, TrainLearner])
def test_autocast_is_on_only_for_the_model(cls):
    log = {}
    def note(learn, nm): log.setdefault((nm, learn.training), set()).add(on())
    class SpyCB(Callback):
        order = 0
    for o in [*batch_events, 'cleanup_batch', 'before_epoch', 'after_epoch']: setattr(SpyCB, o, lambda self, learn, o=o: note(learn, o))
    early, late = SpyCB(), SpyCB()
    early.order, late.order = -50, 500
    def loss_func(preds, targs):
        log.setdefault('loss', set()).add((on(), preds.dtype))
        return F.cross_entropy(preds, targs)
    cbs = [early, MixedPrecisionCB(), late, *([TrainCB()] if cls is Learner else [])]
    model = get_model()
    model.register_forward_hook(lambda *args: log.setdefault('model', set()).add(on()))
    cls(model, (batches(), batches(2)), loss_func, cbs=cbs).fit(2)
    assert log.pop('loss') == {(False, torch.float32)} and log.pop('model') == {True}
    assert all(v=={False} for v in log.values())

@pytest.mark.parametrize('exc', [ValueError(), KeyboardInterrupt(), CancelBatchException(), CancelEpochException(), CancelFitException()])
@pytest.mark.parametrize('event', [*batch_events, 'cleanup_batch'])
@pytest.mark.parametrize('order', [-50, 50])
def test_autocast_is_closed_whatever_happens(event, exc, order):
    learn = get_learner(MixedPrecisionCB(), RaiseCB(event, exc, order))
    try: learn.fit(1)
    except (ValueError, KeyboardInterrupt, CancelEpochException, CancelBatchException, CancelFitException): pass
    assert not on() and learn.cbs[2].scaler is None
    learn.cbs.pop()
    learn.fit(1)
    assert not on()

def test_errors_of_the_model_close_autocast():
    learn = get_learner(MixedPrecisionCB(), model=nn.Linear(4, 3))
    with pytest.raises(RuntimeError, match='shapes'): learn.fit(1)
    assert not on()

@pytest.mark.parametrize('event', ['before_batch', 'after_predict', 'after_loss', 'cleanup_batch'])
def test_a_fit_inside_a_fit_sees_its_own_weights(event):
    "Autocast keeps rounded weights until its outermost region ends; a fit inside must not go on with them."
    state = []
    def inner(learn):
        if state: return
        state.append(on())
        learn.fit(3, valid=False, lr=0.5)
        state.append(on())
        raise CancelFitException()
    a, b = get_learner(MixedPrecisionCB()), get_learner(DoCB(inner, event, order=1), MixedPrecisionCB())
    a.fit(3, valid=False, lr=0.5)
    b.fit(1, valid=False)
    if event=='cleanup_batch': assert state == [False, False]                   # the outer fit has made a step by then
    else: assert torch.equal(weights(a), weights(b)) and state == [False]*2
    assert not on()

def test_weights_stay_float32_and_all_predictions_become_so():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 3)
        def forward(self, x): return dict(out=self.lin(x), other=[self.lin(x), torch.arange(3)])
    seen = []
    learn = Learner(Two(), (batches(),), lambda preds, targs: F.cross_entropy(preds['out'], targs), cbs=[TrainCB(), MixedPrecisionCB(),
                    DoCB(lambda learn: seen.append((learn.preds, learn.loss)), 'after_loss')])
    learn.fit(1)
    preds, loss = seen[0]
    assert preds['out'].dtype == preds['other'][0].dtype == loss.dtype == torch.float32 and preds['other'][1].dtype == torch.int64
    assert all(p.dtype==torch.float32 for p in learn.model.parameters())
    assert torch.equal(preds['out'], preds['out'].bfloat16().float())            # it did count in bf16

def test_metrics_are_those_of_the_rounded_predictions():
    metrics, kept = MetricsCB(acc=Accuracy(), verbose=False), []
    learn = get_learner(MixedPrecisionCB(), metrics, DoCB(lambda l: kept.append((l.preds.detach(), l.batch[1])), 'after_batch'))
    learn.fit(1, train=False)
    preds, targs = (torch.cat(o) for o in zip(*kept))
    assert metrics.history[0]['acc'] == pytest.approx((preds.argmax(1)==targs).float().mean().item())
    assert metrics.history[0]['loss'] == pytest.approx(F.cross_entropy(preds, targs).item(), rel=1e-5)

def fp16(scale=1024.):
    return MixedPrecisionCB(torch.float16, torch.amp.GradScaler('cpu', init_scale=scale, growth_interval=10**6))

def test_scaling_is_seen_by_nobody():
    grads, losses = [], []
    see = DoCB(lambda learn: grads.append(learn.model[0].weight.grad.clone()), 'after_backward')
    see_loss = DoCB(lambda learn: losses.append(learn.loss.item()), 'after_loss', order=-50)
    for cb in (fp16(1.), fp16(1024.)): get_learner(cb, see, see_loss, dls=(batches(1),)).fit(1)
    assert losses[0] == losses[1] < 3 and torch.allclose(grads[0], grads[1], rtol=0.02, atol=1e-5)
    exact = get_learner(see, dls=(batches(1),))
    exact.fit(1)
    assert torch.allclose(grads[1], grads[2], rtol=0.05, atol=1e-4)

def test_a_term_of_the_loss_is_scaled_like_the_loss():
    grads = []
    see = DoCB(lambda learn: grads.append(learn.model[0].weight.grad.clone()), 'after_backward', order=50)
    term = LossTermCB(lambda learn: learn.model[0].weight.square().mean(), 3.)
    for cb in (fp16(1.), fp16(1024.)):
        learn = get_learner(cb, see, term, dls=(batches(1),))
        learn.loss_func = lambda preds, targs: 0*preds.sum()
        learn.fit(1)
    want = 6*get_model()[0].weight/80                       # the derivative of 3*mean(w²), 80 weights
    assert torch.allclose(grads[0], want, rtol=1e-3) and torch.allclose(grads[1], want, rtol=1e-3)

@pytest.mark.parametrize('form', [tuple, dict])
def test_models_with_several_outputs_can_be_measured(form):
    class Two(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return dict(out=y, twice=2*y) if form is dict else (y, 2*y)
    def first(preds): return preds['out'] if form is dict else preds[0]
    metrics, kept = MetricsCB(acc=Accuracy(), verbose=False), []
    learn = Learner(Two(5, 3), (batches(), batches(2)), lambda preds, targs: F.cross_entropy(first(preds), targs),
                    cbs=[TrainCB(), MixedPrecisionCB(), metrics, DoCB(lambda l: kept.append((first(l.preds), l.batch[1])), 'after_batch')])
    learn.fit(1, train=False)
    preds, targs = (torch.cat(o) for o in zip(*kept))
    assert metrics.history[-1]['acc'] == pytest.approx((preds.argmax(1)==targs).float().mean().item()) and preds.dtype == torch.float32

def test_clipping_comes_after_the_scale_is_undone():
    norms = []
    clip = DoCB(lambda l: norms.append(torch.nn.utils.clip_grad_norm_(l.model.parameters(), 1e-3).item()), 'after_backward')
    a, b = get_learner(clip), get_learner(fp16(), clip)
    for learn in (a, b): learn.fit(1, valid=False)
    n = len(norms)//2
    assert norms[n:] == pytest.approx(norms[:n], rel=0.05) and torch.allclose(weights(a), weights(b), atol=1e-4)

class GatherCB(Callback):
    "Steps only after every second batch."
    order = -20
    def after_backward(self, learn):
        if learn.iter%2==0: raise CancelStepException()

def test_gathered_gradients_are_unscaled_once():
    a, b = get_learner(GatherCB()), get_learner(GatherCB(), fp16())
    for learn in (a, b): learn.fit(2, valid=False)
    assert torch.allclose(weights(a), weights(b), atol=5e-3) and not torch.equal(weights(a), weights(b))

@pytest.mark.parametrize('make', [get_learner, partial(MomentumLearner, dls=(batches(), batches(2)), loss_func=F.cross_entropy)])
def test_overflow_skips_the_step_and_halves_the_scale(make):
    steps, cb = [], fp16(2.**60)
    rest = [cb, DoCB(lambda learn: steps.append(learn.iter), 'after_step')]
    learn = make(*rest) if make is get_learner else make(get_model(), cbs=rest)
    before = weights(learn)
    learn.fit(1)
    assert cb.skipped == 4 and not steps and torch.equal(weights(learn), before) and cb.own.get_scale() == 2.**56
    assert all(p.grad is None for p in learn.model.parameters())
    for _ in range(20): learn.fit(1)
    assert steps and weights(learn).isfinite().all() and not torch.equal(weights(learn), before)

def test_momentum_learns_nothing_from_a_skipped_step():
    learn = get_learner(fp16(2.**60), opt_func=partial(optim.SGD, momentum=0.9))
    learn.fit(1)
    assert not learn.opt.state

def test_each_fit_has_its_own_scaler(monkeypatch):
    fake = dict(scale=lambda g: g, step=lambda o: o.step(), update=lambda: None)
    monkeypatch.setattr(torch.amp, 'GradScaler', lambda device: made.append(device) or SimpleNamespace(**fake))
    made, seen, cb = [], [], MixedPrecisionCB(torch.float16)
    monkeypatch.setattr(cb, '_scaler_for', lambda device: MixedPrecisionCB._scaler_for(cb, 'cuda'))
    def inner(learn):
        if len(made)==1: learn.fit(1, valid=False)
        seen.append(cb.scaler)
    learn = get_learner(cb, DoCB(inner, 'before_epoch'))
    learn.fit(1, valid=False)
    assert made == ['cuda', 'cuda'] and seen[0] is not seen[1] and cb.scaler is None

def test_mixed_precision_errors():
    with pytest.raises(ValueError, match='one of torch.bfloat16, torch.float16; got torch.float32'): MixedPrecisionCB(torch.float32)
    learn = get_learner(MixedPrecisionCB(torch.float16))
    with pytest.raises(ValueError, match='float16 is for CUDA, the model is on cpu. Use dtype=torch.bfloat16'): learn.fit(1)
    assert not on() and learn.handlers is None

def test_looking_leaves_no_trace():
    learn = get_learner(MixedPrecisionCB())
    before = weights(learn)
    for event in ('before_batch', 'after_predict', 'after_loss'): learn.look(event)
    assert torch.equal(before, weights(learn)) and not on()
    assert learn.look('after_loss')['preds'].dtype == torch.float32

# --- CompileCB
graphs = []
def counting(graph, inputs):
    graphs.append(graph)
    return graph.forward

def odd_model(n): return nn.Sequential(nn.Linear(5, n), nn.ReLU(), nn.Linear(n, 3))      # a form that nothing else here has

def norm_model():
    set_seed(1)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))

@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_is_equal(backend):
    res = []
    for cbs in ([], [CompileCB(backend=backend)]):
        learn = get_learner(*cbs, model=norm_model())
        set_seed(2)
        learn.fit(2)
        res.append(learn)
    a, b = res
    assert torch.allclose(weights(a), weights(b), atol=1e-5) and torch.allclose(a.model[1].running_var, b.model[1].running_var, atol=1e-5)
    assert list(a.model.state_dict()) == list(b.model.state_dict()) and b.model._compiled_call_impl is None

def test_nothing_is_compiled_twice_and_the_limit_of_torch_does_no_harm():
    "torch keeps eight versions of a function; what comes after them runs uncompiled, and learns the same."
    torch._dynamo.reset()
    for i in range(10):
        a, b = get_learner(CompileCB(backend=counting), model=odd_model(20+i)), get_learner(model=odd_model(20+i))
        b.model.load_state_dict(a.model.state_dict())
        graphs.clear()
        a.fit(1)
        n = len(graphs)
        a.fit(1)
        for _ in range(2): b.fit(1)
        assert n == len(graphs) and (n or i) and torch.allclose(weights(a), weights(b), atol=1e-5)
    torch._dynamo.reset()

@pytest.mark.parametrize('event, exc', [('after_loss', ValueError()), ('before_epoch', KeyboardInterrupt()),
                                        ('cleanup_fit', ValueError()), ('after_batch', CancelFitException())])
def test_the_model_is_given_back_eager(event, exc):
    learn = get_learner(CompileCB(backend='eager'), RaiseCB(event, exc, when=lambda learn: True))
    try: learn.fit(1)
    except (ValueError, KeyboardInterrupt): pass
    assert learn.model._compiled_call_impl is None

def test_copies_during_a_fit_are_eager_and_whole():
    copies = []
    learn = get_learner(CompileCB(backend='eager'), DoCB(lambda learn: copies.append(copy.deepcopy(learn.model)), 'after_epoch'))
    learn.fit(1)
    assert copies[0]._compiled_call_impl is None and copies[0](torch.zeros(2, 5)).shape == (2, 3)

def test_a_fit_inside_a_fit_stays_compiled():
    state = []
    def inner(learn):
        if len(state)<1:
            state.append(learn.model._compiled_call_impl)
            learn.fit(1)
            state.append(learn.model._compiled_call_impl)
    learn = get_learner(CompileCB(backend='eager'), DoCB(inner, 'after_epoch'))
    learn.fit(1)
    assert state[0] is state[1] is not None and learn.model._compiled_call_impl is None

def test_what_is_compiled_already_is_left_alone():
    model = get_model()
    model.compile(backend='eager')
    theirs = model._compiled_call_impl
    get_learner(CompileCB(backend=counting), model=model).fit(1)
    assert model._compiled_call_impl is theirs
    wrapped, n = torch.compile(get_model(), backend='eager'), len(graphs)
    get_learner(CompileCB(backend=counting), model=wrapped).fit(1)
    assert len(graphs) == n

def broken(graph, inputs): raise OSError('no C++ compiler')

def fine(graph, inputs): return graph.forward

@pytest.mark.parametrize('backend', [broken, aot_autograd(fw_compiler=fine, bw_compiler=broken)], ids=['forward', 'backward'])
def test_the_error_of_a_compiler_ends_the_fit(backend):
    torch._dynamo.reset()
    learn = get_learner(CompileCB(backend=backend))
    before, names = weights(learn), list(learn.model.state_dict())
    with pytest.raises(Exception, match='no C.. compiler') as e: learn.fit(1)
    assert 'in epoch 0, training, last batch 0' in e.value.__notes__[-1]
    assert learn.model._compiled_call_impl is None and list(learn.model.state_dict()) == names and torch.equal(before, weights(learn))
    learn.cbs.pop()
    learn.fit(1)                                            # without the compiler it goes on

def test_a_python_that_cannot_compile(monkeypatch):
    def compile(*args, **kwargs): raise RuntimeError('torch.compile is not supported on Python 9')
    monkeypatch.setattr(torch, 'compile', compile)
    learn = get_learner(CompileCB())
    with pytest.raises(RuntimeError, match='Python 9'): learn.fit(1)
    assert learn.model._compiled_call_impl is None and torch._dynamo.config.skip_nnmodule_hook_guards

def test_mistakes_of_the_user_are_errors():
    with pytest.raises(RuntimeError, match="Invalid backend: 'inductr'"): get_learner(CompileCB(backend='inductr')).fit(1)
    with pytest.raises(TypeError, match='bakend'): get_learner(CompileCB(bakend='eager')).fit(1)

@pytest.mark.parametrize('make, exc, words', [
    (lambda: nn.Linear(4, 3), RuntimeError, 'shapes cannot be multiplied|same reduction dim'),      # torch's words, eager and compiled
    (lambda: nn.Sequential(nn.Linear(5, 3), Raiser()), ValueError, 'mine')])
def test_errors_of_the_model_come_through(make, exc, words):
    learn = get_learner(CompileCB(backend='eager'), model=make())
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        with pytest.raises(exc, match=words) as e: learn.fit(1)
    assert learn.model._compiled_call_impl is None

class Raiser(nn.Module):
    def forward(self, x): raise ValueError('mine')

class Ear:
    shape = None
    def __call__(self, module, args, out): self.shape = out.shape

def test_hooks_hung_between_fits_are_heard_and_no_longer_when_gone():
    torch._dynamo.reset()
    learn, ear = get_learner(CompileCB(backend='aot_eager'), model=odd_model(41)), Ear()
    learn.fit(1)
    handle = learn.model[0].register_forward_hook(ear)
    learn.fit(1)
    assert ear.shape[1] == 41
    handle.remove()
    ear.shape = None
    learn.fit(1)
    assert ear.shape is None

def test_hooks_that_a_callback_hangs_up_in_each_fit_or_in_the_middle():
    torch._dynamo.reset()
    class ShapeCB(Callback):
        def __init__(self): self.ear = Ear()
        def before_batch(self, learn):
            if learn.iter==2 and learn.training: self.handle = learn.model[0].register_forward_hook(self.ear)
        def cleanup_fit(self, learn): self.handle.remove()
    shapes = ShapeCB()
    learn = get_learner(CompileCB(backend='aot_eager'), shapes, model=odd_model(43))
    for _ in range(3):
        shapes.ear.shape = None
        learn.fit(1)
        assert shapes.ear.shape[1] == 43

# --- all three
def test_all_together():
    timer = TimeCB(show=False)
    metrics = MetricsCB(acc=Accuracy(), verbose=False)
    learn = get_learner(timer, CompileCB(backend='eager'), MixedPrecisionCB(), metrics)
    learn.fit(8)
    assert metrics.history[-2]['loss'] < metrics.history[0]['loss'] and set(timer.timed()) == {'train', 'valid'}
    assert not on() and learn.model._compiled_call_impl is None and learn.handlers is None
