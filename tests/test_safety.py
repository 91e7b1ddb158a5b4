"Runs that guard themselves: whoever is guilty, whatever breaks off, weights, files and hooks are right."
import math, random, re
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn, optim

import miniai.look                  # adds Learner.look
from conftest import At
from miniai.core import set_seed
from miniai.events import event_names
from miniai.learner import Callback, CancelFitException, Learner, LossTermCB, MetricsCB, TrainCB
from miniai.metrics import Accuracy
from miniai.safety import EarlyStopCB, EMACB, NaNStopCB, SaveBestCB, WatchCB

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)%2
def batches(): return list(zip(X.split(4), Y.split(4)))
def learner(*cbs, model=None, dls=None, loss_func=F.cross_entropy, lr=0.1, opt_func=partial(optim.SGD, momentum=0.9)):
    set_seed(0)
    model = model or nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    return Learner(model, dls or (batches(), batches()), loss_func, lr, [TrainCB(), MetricsCB(acc=Accuracy()), *cbs], opt_func)
def state(learn): return [o.detach().clone() for o in learn.model.state_dict().values()]
def same(a, b): return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

class ScriptCB(MetricsCB):
    "A `MetricsCB` whose validation losses are known."
    def __init__(self, losses):
        super().__init__()
        self.script = losses
    def after_epoch(self, learn):
        super().after_epoch(learn)
        if not learn.training: self.history[-1]['loss'] = self.script[learn.epoch]

def scripted(losses, *cbs):
    learn = learner(*cbs)
    learn.cbs[1] = ScriptCB(losses)
    return learn

# --- NaNStopCB
class Log(nn.Module):
    def forward(self, x): return (x*0-1).log()
class Between(nn.Module):
    "Something breaks between the layers."
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)
    def forward(self, x): return self.b(self.a(x)/0)
class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)
    def forward(self, x): return self.a(x)/0

@pytest.mark.parametrize('model, words', [
    (lambda: nn.Sequential(nn.Linear(3, 4), Log(), nn.Linear(4, 2)), r'1 \(Log\) made it, from finite input float32 \[4,4\]'),
    (lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), Log())), nn.Linear(4, 2)), r'0\.1\.1 \(Log\) made it'),
    (lambda: nn.Sequential(Between()), r'between layers, before 0\.b \(Linear\)'), (Between, r'before b \(Linear\)'),
    (Late, r'model \(Late\) made it, from finite input')])
@pytest.mark.parametrize('compiled', [False, True], ids=['eager', 'compiled'])
def test_the_guilty_layer_is_named(model, words, compiled, capsys):
    stop = NaNStopCB()
    learn = learner(stop, model=model())
    if compiled: learn.model.compile(backend='eager')
    before = state(learn)
    learn.fit(2)
    assert re.search(words, stop.where), stop.where
    assert capsys.readouterr().out.count('NaNStopCB: the loss of training batch 0 in epoch 0')==1
    assert same(before, state(learn)) and not any(m._forward_hooks for m in learn.model.modules())

def test_other_suspects():
    stop = NaNStopCB()
    x = X.clone()
    x[9, 0] = math.inf
    learner(stop, dls=(list(zip(x.split(4), Y.split(4))), None)).fit(1)
    assert 'training batch 2' in stop.where and 'the batch itself is not finite: tuple(float32 [2,3]' in stop.where
    learner(stop, loss_func=lambda p, t: p.sum()*math.inf).fit(1)
    assert 'the loss function made it, or a term that was added. Targets: int64 [4]' in stop.where
    class Breaks(Callback):
        def after_step(self, learn):
            with torch.no_grad(): learn.model[3].weight[0, 0] = math.nan
    learner(stop, Breaks()).fit(1)
    assert 'training batch 1' in stop.where and '3.weight was broken before it' in stop.where
    learn = learner(stop)
    learn.model[1].running_var.fill_(math.nan)
    learn.fit(1, train=False)
    assert 'validation batch 0' in stop.where and '1 (BatchNorm1d) made it, its running_var being broken' in stop.where
    class Lucky(nn.Linear):
        calls = 0
        def forward(self, x):
            self.calls += 1
            return super().forward(x)*(math.inf if self.calls==2 else 1)
    learner(stop, model=Lucky(3, 2)).fit(1)
    assert 'training batch 1' in stop.where and 'a second pass' in stop.where

def test_a_term_of_the_loss_is_watched_and_counted():
    stop = NaNStopCB()
    learn = learner(stop, LossTermCB(lambda learn: learn.preds.mean()*math.nan))
    before = state(learn)
    learn.fit(2)
    assert 'training batch 0' in stop.where and 'or a term that was added' in stop.where and same(before[:1], state(learn)[:1])
    plain, more = learner(lr=0.), learner(LossTermCB(lambda learn: learn.preds.mean()*0+1, weight=2.), lr=0.)
    for learn in (plain, more): learn.fit(1)
    for a, b in zip(plain.history, more.history): assert b['loss']==pytest.approx(a['loss']+2) and b['acc']==a['acc']

@pytest.mark.parametrize('form', [tuple, dict])
def test_a_model_with_several_outputs_is_watched(form):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.log = nn.Linear(3, 2), Log()
        def forward(self, x):
            y = self.a(x)
            return dict(out=y, more=self.log(y)) if form is dict else (y, self.log(y))
    def loss_func(preds, targs): return sum(o.sum() for o in (preds.values() if form is dict else preds))
    stop = NaNStopCB()
    learner(stop, model=Two(), loss_func=loss_func).fit(1)
    assert 'log (Log) made it' in stop.where

def test_the_search_leaves_no_trace():
    seen = []
    class SeeCB(Callback):
        order = -9
        def after_loss(self, learn): seen.append((state(learn), torch.get_rng_state(), learn.preds, learn.loss))
        cleanup_batch = after_loss
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), Log(), nn.Linear(4, 2))
    learner(NaNStopCB(), SeeCB(), model=model).fit(1)
    before, after = seen
    assert same(before[0], after[0]) and torch.equal(before[1], after[1]) and model.training
    assert before[2] is after[2] and before[3] is after[3]

def test_an_interrupted_search_is_cleaned_up():
    class Twice(nn.Linear):
        calls = 0
        def forward(self, x):
            self.calls += 1
            if self.calls==2: raise KeyboardInterrupt
            return super().forward(x)*math.nan
    learn = learner(NaNStopCB(), model=nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Twice(4, 2)))
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert not any(m._forward_hooks for m in learn.model.modules()) and learn.model[1].num_batches_tracked==1

def test_only_some_batches_are_looked_at():
    stop, calls = NaNStopCB(every=2), []
    class BadCB(Callback):
        order = -9
        def after_loss(self, learn):
            calls.append(learn.iter)
            if learn.iter>=1: learn.loss = learn.loss*math.nan
    learner(stop, BadCB()).fit(1)
    assert calls==[0, 1, 2] and 'batch 2' in stop.where

def test_nothing_is_said_of_an_old_accident(capsys):
    stop = NaNStopCB()
    learn = learner(stop, model=nn.Sequential(nn.Linear(3, 2), Log()))
    learn.fit(1)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=At('before_fit', order=-20))
    assert 'NaNStopCB' not in capsys.readouterr().out
    learn.model = nn.Linear(3, 2)
    learn.fit(1)
    assert stop.where is None

# --- WatchCB
def reference(losses, best, min_delta):
    "Value, epoch and waiting time, found without cleverness."
    value, epoch = None, None
    for i, o in enumerate(losses):
        if not math.isfinite(o): continue
        if value is None or (o<value-min_delta if best is min else o>value+min_delta): value, epoch = o, i
    return value, epoch, len(losses)-1-(-1 if epoch is None else epoch)

@pytest.mark.parametrize('seed', range(20))
def test_watching(seed):
    rng = random.Random(seed)
    losses = [rng.choice([1., 2., 3., 4., 5., math.nan, math.inf]) for _ in range(rng.randint(1, 9))]
    best, delta = rng.choice([min, max]), rng.choice([0, 0, 1.5])
    watch = WatchCB(best=best, min_delta=delta)
    learn = scripted(losses, watch)
    learn.fit(len(losses))
    assert (watch.value, watch.epoch, watch.waited)==reference(losses, best, delta)
    with pytest.warns(UserWarning, match='WatchCB: this fit had no validation'): learn.fit(1, valid=False)
    learn.fit(0)
    assert watch.value is None

@pytest.mark.parametrize('make', [lambda **kw: EarlyStopCB(2, **kw), lambda **kw: SaveBestCB('x.safetensors', **kw), WatchCB])
def test_watching_needs_something_to_watch(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kw, words in ((dict(best='min'), 'best is the function min or max'), (dict(min_delta=-1), 'at least 0'), (dict(min_delta=math.nan), 'at least 0')):
        with pytest.raises(ValueError, match=words): make(**kw)
    with pytest.raises(ValueError, match='name must be one of loss, acc; got .ac.*Did you mean .acc'): learner(make(name='ac')).fit(1)
    with pytest.raises(ValueError, match='no validation data. Give dls'): learner(make(), dls=(batches(), None)).fit(1)
    bare = Learner(nn.Linear(3, 2), (batches(), batches()), F.cross_entropy, cbs=[TrainCB(), make()])
    with pytest.raises(ValueError, match='Add a MetricsCB'): bare.fit(1)
    assert not list(tmp_path.iterdir())
    bare.cbs.append(MetricsCB())
    bare.lr_find()                                          # neither disturbs nor is disturbed
    assert not list(tmp_path.iterdir())

# --- EarlyStopCB
@pytest.mark.parametrize('losses, patience, stopped', [
    ([3, 2, 2, 2, 2, 2], 2, 3), ([3, 2, 2, 1, 1, 1], 2, 5), ([1, 2], 1, None), ([1, 2, 3], 1, 1), ([1, 2, 3], 2, None),
    ([math.nan]*4, 2, 1), ([3, math.nan, 2, math.nan, 1], 2, None)])
def test_early_stop(losses, patience, stopped, capsys):
    early, seen = EarlyStopCB(patience), []
    class LateCB(Callback):
        order = 85                                          # after bars and recorders
        def after_epoch(self, learn): seen.append((learn.epoch, learn.training))
    learn = scripted([float(o) for o in losses], early, LateCB())
    for _ in range(2):                                      # each fit waits anew
        seen.clear()
        learn.fit(len(losses))
        n = len(losses) if early.stopped is None else early.stopped+1
        at_end = stopped==len(losses)-1                     # then there is nothing to end
        assert early.stopped==(None if at_end else stopped) and seen==[(i, o) for i in range(n) for o in (True, False)]
        assert capsys.readouterr().out.count('EarlyStopCB: ended')==(early.stopped is not None)

def test_early_stop_ignores_fits_that_only_judge():
    early = EarlyStopCB(1)
    learn = scripted([1., 1., 1.], early)
    learn.fit(3, train=False)
    assert early.stopped is None and len(learn.cbs[1].history)==3

def test_early_stop_bad_arguments():
    for bad, exc in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(exc, match='patience'): EarlyStopCB(bad)

# --- SaveBestCB
def load(path): return [*safetensors.torch.load_file(path).values()]

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_best_weights_come_back(tmp_path, dtype):
    kept = []
    class KeepCB(Callback):
        def after_epoch(self, learn):
            if not learn.training: kept.append(state(learn))
    save, path = SaveBestCB(tmp_path/'a/b/best.safetensors', restore=True), tmp_path/'a/b/best.safetensors'
    learn = scripted([3., 1., 2.], save, KeepCB())
    learn.model.to(dtype)
    learn.dls = [[(x.to(dtype), y) for x, y in batches()]]*2
    ours = list(learn.model.parameters())
    learn.fit(3)
    assert same(kept[1], state(learn)) and not same(kept[2], state(learn)) and (save.value, save.epoch)==(1., 1)
    assert all(a is b for a, b in zip(ours, learn.model.parameters()))
    assert [o.name for o in path.parent.iterdir()]==['best.safetensors']
    with safetensors.safe_open(path, 'pt') as f: assert f.metadata()=={'epoch': '1', 'loss': '1.0'}

def test_the_best_of_all_fits_of_one_model(tmp_path):
    save = SaveBestCB(tmp_path/'best.safetensors')
    learn = scripted([1.], save)
    learn.fit(1)
    first = save.path.read_bytes()
    learn.cbs[1] = ScriptCB([2.])
    learn.fit(1)
    assert save.path.read_bytes()==first and save.value==1
    learn.fit(1, train=False)
    learn.cbs[1] = ScriptCB([0.5])
    learn.fit(1, train=False)                               # nothing was trained
    assert save.path.read_bytes()==first
    learn.fit(1)
    assert save.path.read_bytes()!=first and save.value==0.5
    learn.cbs[1] = ScriptCB([9.])
    save.path.unlink()
    learn.fit(1)                                            # the best is no more
    assert save.value==9 and save.path.exists()

def test_a_fresh_object_knows_what_the_file_knows(tmp_path):
    path = tmp_path/'best.safetensors'
    scripted([2.], SaveBestCB(path)).fit(1)
    good = path.read_bytes()
    worse, again = SaveBestCB(path), SaveBestCB(path, restore=True)
    scripted([3., 2.5], worse).fit(2)
    assert path.read_bytes()==good and (worse.value, worse.epoch)==(2., 0) and worse.waited==2
    learn = scripted([3., 1.], again)
    learn.fit(2)
    assert path.read_bytes()!=good and (again.value, again.epoch)==(1., 1)
    with safetensors.safe_open(path, 'pt') as f: assert f.metadata()=={'epoch': '1', 'loss': '1.0'}

@pytest.mark.parametrize('make, words', [
    (lambda path: path.write_bytes(b'no safetensors'), 'is no whole safetensors file'),
    (lambda path: safetensors.torch.save_file({'weight': torch.zeros(2)}, path), 'is there, and knows no loss'),
    (lambda path: safetensors.torch.save_file({'x': torch.zeros(2)}, path, metadata=dict(loss='1', epoch='0')), 'holds another kind of model'),
    (lambda path: learner(SaveBestCB(path, 'acc', max)).fit(1), 'is there, and knows no loss')])
def test_a_foreign_file_is_refused_and_kept(tmp_path, make, words):
    path = tmp_path/'best.safetensors'
    make(path)
    good, learn = path.read_bytes(), scripted([0.], SaveBestCB(path))
    before = state(learn)
    with pytest.raises(ValueError, match=words) as e: learn.fit(1)
    assert 'Choose another path, or remove the file' in str(e.value)
    assert path.read_bytes()==good and same(before, state(learn))

@pytest.mark.parametrize('exc', [OSError('disk full'), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, exc):
    save = SaveBestCB(tmp_path/'best.safetensors', restore=True)
    learn = scripted([2., 1.], save)
    learn.fit(1)
    good, real = save.path.read_bytes(), safetensors.torch.save_file
    def half(tensors, path, metadata=None):
        Path(path).write_bytes(b'half')
        raise exc
    monkeypatch.setattr(safetensors.torch, 'save_file', half)
    learn.cbs[1] = ScriptCB([1., 1.])
    with pytest.raises(type(exc)): learn.fit(1)
    assert save.path.read_bytes()==good and list(tmp_path.iterdir())==[save.path] and save.value==2
    assert same(load(save.path), [dict(learn.model.state_dict())[k] for k in safetensors.torch.load_file(save.path)])
    monkeypatch.setattr(safetensors.torch, 'save_file', real)
    learn.fit(1)
    assert save.value==1 and save.path.read_bytes()!=good

def test_nan_is_never_the_best(tmp_path):
    save = SaveBestCB(tmp_path/'best.safetensors', restore=True)
    scripted([math.nan, math.inf], save).fit(2)
    assert not save.path.exists() and save.value is None
    with pytest.raises(FileNotFoundError): save.restore(learner())

def test_shared_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
        def forward(self, x): return self.b(self.a(x))
    save = SaveBestCB(tmp_path/'best.safetensors')
    learn = learner(save, EMACB(), model=Tied())
    learn.fit(1)
    want, other = state(learn), learner(model=Tied())
    assert not same(want, state(other))
    save.restore(other)
    assert same(want, state(other)) and other.model.a.weight is other.model.b.weight
    with pytest.raises(RuntimeError): save.restore(learner())

def test_bad_places_for_a_file(tmp_path):
    (tmp_path/'file').write_text('x')
    learn = learner(SaveBestCB(tmp_path))
    with pytest.raises(IsADirectoryError, match='Name a file in it'): learn.fit(1)
    for o in ('file/best.safetensors', 'file/more/best.safetensors'):
        learn = learner(SaveBestCB(tmp_path/o))
        before = state(learn)
        with pytest.raises(OSError): learn.fit(1)
        assert same(before, state(learn))
    assert (tmp_path/'file').read_text()=='x'

# --- EMACB
@pytest.mark.parametrize('decay', [0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize('opt', [partial(optim.SGD, momentum=0.9), optim.Adam])
def test_average_equals_the_formula(decay, opt):
    seen, judged = [], []
    class KeepCB(Callback):
        order = 50
        def before_fit(self, learn): seen.append([p.detach().double() for p in learn.model.parameters()])
        def after_step(self, learn): self.before_fit(learn)
        def after_loss(self, learn):
            if not learn.training: judged.append([p.detach().double() for p in learn.model.parameters()])
    learn = learner(EMACB(decay), KeepCB(), opt_func=opt)
    ours = list(learn.model.parameters())
    learn.fit(4)
    avg = seen[0]
    for t, ps in enumerate(seen[1:], 1):
        d = min(decay, (1+t)/(10+t))
        avg = [d*a+(1-d)*p for a, p in zip(avg, ps)]
        if t%3==0: assert all(torch.allclose(a, p, atol=1e-6) for a, p in zip(avg, judged[t-1]))
    assert len(seen)==13 and all(torch.allclose(a, p.double(), atol=1e-6) for a, p in zip(avg, learn.model.parameters()))
    assert all(a is b for a, b in zip(ours, learn.model.parameters()))
    learn.fit(1)                                            # from the average on

def test_training_does_not_notice_the_average():
    plain, avg = learner(), learner(EMACB(keep=False))
    for learn in (plain, avg):
        learn.fit(3)
        learn.fit(1)
    assert same(state(plain), state(avg))
    assert all(torch.equal(a['momentum_buffer'], b['momentum_buffer']) for a, b in zip(plain.opt.state.values(), avg.opt.state.values()))
    assert plain.cbs[1].history!=avg.cbs[1].history

def test_statistics_are_those_of_the_last_step():
    plain, avg = learner(), learner(EMACB())
    for learn in (plain, avg): learn.fit(2)
    assert same(plain.model.buffers(), avg.model.buffers()) and not same(plain.model.parameters(), avg.model.parameters())

def test_frozen_and_whole_number_parameters():
    learn = learner(EMACB(), opt_func=lambda ps, lr: optim.SGD([p for p in ps if p.requires_grad], lr))
    learn.model[0].weight.requires_grad_(False)
    learn.model.register_parameter('count', nn.Parameter(torch.tensor(3), requires_grad=False))
    before = learn.model[0].weight.clone()
    learn.fit(2)
    assert torch.equal(before, learn.model[0].weight) and learn.model.count==3

def test_average_without_training():
    learn = learner(EMACB())
    before = state(learn)
    learn.fit(2, train=False)
    learn.fit(0)
    assert same(before, state(learn))
    learn.lr_find()
    learn.look()
    assert same(before, state(learn))
    learn.fit(1, valid=False)
    assert not same(before, state(learn))

def test_the_average_is_what_is_saved(tmp_path):
    save = SaveBestCB(tmp_path/'best.safetensors', restore=True)
    learn = learner(EMACB(), save, EarlyStopCB(1))
    learn.fit(6)
    learn.fit(1, train=False)
    assert learn.cbs[1].history[-1]['loss']==pytest.approx(save.value)

def test_ema_bad_arguments():
    for bad in (1, -0.1, 2, math.nan):
        with pytest.raises(ValueError, match='EMACB: decay'): EMACB(bad)

# --- all together
@pytest.mark.parametrize('nth', [1, 2, 7])
@pytest.mark.parametrize('order', [-50, 0, 200])
@pytest.mark.parametrize('event', sorted(event_names))
def test_whatever_breaks_off_all_is_right(event, order, nth, tmp_path):
    def run(*cbs):
        learn = learner(*cbs)
        stop = At(event, nth=nth, order=order)
        try: learn.fit(3, cbs=stop)
        except KeyboardInterrupt: pass
        return learn
    path = tmp_path/'best.safetensors'
    plain, guarded = run(), run(EMACB(keep=False), NaNStopCB(), SaveBestCB(path), EarlyStopCB(2))
    assert same(state(plain), state(guarded)) and plain.model.training==guarded.model.training
    assert not any(m._forward_hooks for m in guarded.model.modules()) and len(guarded.cbs)==6
    assert not [o for o in tmp_path.iterdir() if o!=path] and (not path.exists() or len(load(path))==len(state(plain)))
    for learn in (plain, guarded): learn.fit(1)             # and on it goes
    assert same(state(plain), state(guarded)) and path.exists()

@pytest.mark.parametrize('event', ['before_epoch', 'after_loss', 'after_step', 'after_epoch', 'cleanup_epoch', 'cleanup_fit'])
@pytest.mark.parametrize('exc', [CancelFitException, KeyboardInterrupt, ValueError])
def test_the_average_stays_however_the_fit_ends(event, exc):
    avg = EMACB()
    learn = learner(avg)
    try: learn.fit(3, cbs=At(event, exc, nth=1 if event=='cleanup_fit' else 4, order=-50))
    except (exc, CancelFitException): pass
    assert same(avg.avg, learn.model.parameters())

def test_a_fit_that_dies_before_it_begins_changes_nothing(tmp_path, capsys):
    save = SaveBestCB(tmp_path/'best.safetensors', restore=True)
    learn = scripted([1., 2., 3., 4.], EMACB(), save, EarlyStopCB(2))
    learn.fit(4)
    capsys.readouterr()
    with torch.no_grad(): learn.model[0].weight.add_(1)
    before = state(learn)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=At('before_fit', order=-50))
    assert same(before, state(learn)) and not capsys.readouterr().out

def test_loaders_without_length():
    class Endless:
        def __iter__(self): return iter(batches())
    learn = learner(EMACB(), NaNStopCB(), EarlyStopCB(1), dls=(Endless(), Endless()))
    learn.fit(3)
    assert learn.cbs[1].history

def test_a_file_of_a_smaller_model_is_refused_before_the_fit(tmp_path):
    def net(*more): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), *more)
    learner(SaveBestCB(tmp_path/'best'), model=net()).fit(1)
    with pytest.raises(ValueError, match='another kind of model'):
        learner(SaveBestCB(tmp_path/'best'), model=net(nn.ReLU(), nn.Linear(2, 2))).fit(1)

def test_weights_of_an_earlier_fit_do_not_come_in_silence(tmp_path, capsys):
    path = tmp_path/'best'
    scripted([1., 2.], SaveBestCB(path)).fit(2)
    kept = safetensors.torch.load_file(path)
    capsys.readouterr()
    learn = scripted([3., 4.], SaveBestCB(path, restore=True))
    learn.fit(2)
    assert 'of an earlier fit' in ' '.join(capsys.readouterr().out.split())
    assert all(torch.equal(v, kept[k]) for k, v in learn.model.state_dict().items())
    scripted([0.5, 0.6], SaveBestCB(path, restore=True)).fit(2)
    assert 'earlier fit' not in capsys.readouterr().out

def test_the_average_of_half_precision_weights_moves():
    class OnesCB(Callback):
        def after_backward(self, learn):
            with torch.no_grad(): learn.model.weight.fill_(1)
    avg = EMACB(0.999)
    model = nn.Linear(3, 2).to(torch.bfloat16)
    nn.init.zeros_(model.weight)
    x = X[:4].to(torch.bfloat16)
    learn = Learner(model, ([(x, Y[:4])]*300,), F.cross_entropy, 0., [TrainCB(), OnesCB(), avg])
    learn.fit(20)
    assert model.weight.dtype is torch.bfloat16 and (model.weight>0.95).all()
