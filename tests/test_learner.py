"The Learner under odd use: errors, interruptions, nesting, strange loaders, several optimizers, exact repeats."
import math, random, subprocess, sys, time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

import miniai.look
from miniai.core import set_seed
from miniai.datasets import DataLoaders, TensorDL, load_tensors
from miniai.events import (Callback, CancelBatchException, CancelEpochException, CancelFitException, CancelStepException, DeviceCB,
                           Handlers, LossTermCB, Order, ReconstructCB, SingleBatchCB, TrainCB, around, batch_size, event_names, first_tensor, run_cbs,
                           stages, with_cbs)
from miniai.learner import Learner, MomentumLearner, TrainLearner
from miniai.metrics import Accuracy, History, MSE, Together
from miniai.progress import LRFinderCB, MetricsCB, ProgressCB, copy_cbs

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)%2
def batches(bs=4): return list(zip(X.split(bs), Y.split(bs)))
def learner(cbs=(), dls=None, cls=Learner, **kw):
    set_seed(0)
    train = [] if issubclass(cls, TrainLearner) or any(isinstance(cb, TrainCB) for cb in cbs) else [TrainCB()]
    return cls(nn.Linear(3, 2), (batches(), batches()) if dls is None else dls, F.cross_entropy, cbs=[*train, *cbs], **kw)
def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

class Log(Callback):
    "Writes down every event, and raises `exc` at one of them."
    order = 50
    def __init__(self, at=None, exc=None): self.log, self.at, self.exc = [], at, exc
    def __getattr__(self, name):
        if name not in event_names: raise AttributeError(name)
        return lambda learn: self.note(name)
    def note(self, name):
        self.log.append(name)
        if name==self.at: raise self.exc

class LogAll(Log, TrainCB):
    "The same, and does the stages too."
    n_inp = 1
for stage in stages: setattr(LogAll, stage, lambda self, learn, stage=stage: (self.note(stage), getattr(TrainCB, stage)(self, learn)))

@pytest.mark.parametrize('event', sorted(event_names | set(stages)))
@pytest.mark.parametrize('exc', [ValueError('boom'), KeyboardInterrupt()], ids=['error', 'interrupt'])
def test_whatever_fails_all_is_cleaned_up(event, exc):
    spy, late = LogAll(event, exc), Log()
    late.order = 60
    learn = learner([spy])
    learn.model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1))
    mine, modes = list(learn.cbs), (True, True, False)
    learn.model[1].eval()
    with pytest.raises(type(exc)): learn.fit(1, cbs=late)
    assert learn.cbs==mine and learn.handlers is None and tuple(m.training for m in learn.model.modules())==modes
    assert all(p.grad is None for p in learn.model.parameters())
    count = lambda o: late.log.count(f'cleanup_{o}')
    assert count('fit')==1
    assert count('epoch')==spy.log.count('before_epoch') and count('batch')==spy.log.count('before_batch')
    spy.at = None
    learn.fit(1)                                        # and it can be used again

@pytest.mark.parametrize('exc, batches_seen, epochs_seen', [(CancelBatchException, 3, 2), (CancelEpochException, 1, 2), (CancelFitException, 1, 1)])
def test_a_cancel_exception_ends_its_own_level_only(exc, batches_seen, epochs_seen):
    spy = Log('after_predict', exc())
    learner().fit(1, valid=False, cbs=spy)
    assert spy.log.count('before_batch')==batches_seen and 'after_backward' not in spy.log and 'after_batch' not in spy.log
    assert ('after_epoch' in spy.log)==(exc is CancelBatchException) and ('after_fit' in spy.log)==(exc is not CancelFitException)
    assert spy.log[-1]=='cleanup_fit'
    two = Log('after_predict', exc())
    learner().fit(1, cbs=two)
    assert two.log.count('before_epoch')==epochs_seen

def test_an_error_in_one_cleanup_does_not_stop_the_others():
    a, b = Log('cleanup_batch', ValueError('first')), Log()
    b.order = 60
    with pytest.raises(ValueError, match='first') as e: learner().fit(1, cbs=[a, b])
    assert b.log.count('cleanup_batch')==1 and b.log.count('cleanup_fit')==1
    assert 'in Log.cleanup_batch' in e.value.__notes__

def test_the_first_error_is_the_one_you_see():
    with pytest.raises(ValueError, match='first') as e:
        learner().fit(1, cbs=[Log('after_loss', ValueError('first')), Log('cleanup_batch', TypeError('second'))])
    assert any('second' in n for n in e.value.__notes__)

def test_errors_say_where():
    class OddCB(Callback):
        def after_loss(self, learn):
            if learn.epoch==1 and learn.iter==2: raise ValueError('odd')
    with pytest.raises(ValueError) as e: learner().fit(2, cbs=OddCB())
    assert e.value.__notes__==['in OddCB.after_loss', 'in epoch 1, training, last batch 2: tuple(float32 [2,3], int64 [2])']

def test_errors_in_model_and_loader_say_where_too():
    class Bad(nn.Linear):
        def forward(self, x): raise RuntimeError('bad model')
    learn = Learner(Bad(3, 2), (batches(), None), F.cross_entropy, cbs=TrainCB())
    with pytest.raises(RuntimeError, match='bad model') as e: learn.fit()
    assert 'in TrainCB.predict' in e.value.__notes__ and any('training, last batch 0' in n for n in e.value.__notes__)
    def loader():
        yield X, Y
        raise OSError('disk')
    with pytest.raises(OSError, match='disk') as e: Learner(nn.Linear(3, 2), (loader(), None), F.cross_entropy, cbs=TrainCB()).fit()
    assert any('training, last batch 0' in n for n in e.value.__notes__)

@pytest.mark.parametrize('name', ['after_bacth', 'before_train', 'cleanup_all', 'after_zero_grad'])
def test_misspelt_events_are_refused(name):
    with pytest.raises(TypeError, match=f'{name} is no event'): type('MyCB', (Callback,), {name: lambda self, learn: None})

def test_helpers_of_a_callback_may_have_any_other_name():
    type('MyCB', (Callback,), {'steps': 1, 'plot': lambda self: None, '_before': 1, 'fit': 2})

def test_what_is_missing_is_said_before_anything_runs():
    with pytest.raises(TypeError, match='predict, get_loss, backward, step.*TrainCB'): Learner(nn.Linear(3, 2), (batches(),)).fit()
    class HalfCB(Callback):
        def predict(self, learn): pass
        def get_loss(self, learn): pass
    half = Learner(nn.Linear(3, 2), (batches(), batches()), cbs=[HalfCB()])
    with pytest.raises(TypeError, match='nobody does backward, step'): half.fit()
    half.fit(train=False)
    with pytest.raises(TypeError, match=r'TrainCB is a class, add an object: TrainCB\(\)'): Learner(nn.Linear(3, 2), (batches(),), cbs=[TrainCB]).fit()
    with pytest.raises(ValueError, match='no training data'): Learner(nn.Linear(3, 2), cbs=TrainCB()).fit()
    with pytest.raises(ValueError, match='at least 0'): learner().fit(-1)
    with pytest.raises(TypeError, match='whole number'): learner().fit(1.5)

def test_zero_epochs_and_partial_fits():
    for kw, seen in ((dict(n_epochs=0), []), (dict(train=False), [False]*3), (dict(valid=False), [True]*3)):
        modes = []
        class ModeCB(Callback):
            def after_batch(self, learn): modes.append(learn.training)
        learner().fit(**kw, cbs=ModeCB())
        assert modes==seen

def test_no_validation_loader_is_fine():
    for dls in ((batches(), None), (batches(),), DataLoaders(batches())):
        m = MetricsCB()
        learner([m], dls).fit(1)
        assert [r['part'] for r in m.history]==['train']

def test_generators_and_loaders_without_length():
    class Endless:
        def __iter__(self): return iter(batches())
    m = MetricsCB()
    learner([m, ProgressCB()], (Endless(), Endless())).fit(2)
    assert len(m.history)==4
    with pytest.raises(ValueError, match='gave no batch.*generator'): learner(dls=((b for b in batches()), None)).fit(2)

@pytest.mark.parametrize('form', [tuple, list, lambda b: dict(image=b[0], label=b[1])])
def test_batches_in_any_form_give_the_same_weights(form):
    a, b = learner(), learner(dls=([form(o) for o in batches()], None))
    a.fit(valid=False)
    b.fit()
    assert torch.equal(weights(a), weights(b))

def test_a_lone_tensor_is_a_batch_for_an_autoencoder():
    m = MetricsCB(mse=MSE())
    learn = Learner(nn.Linear(3, 3), (list(X.split(4)), None), cbs=[ReconstructCB(), m])
    learn.fit()
    assert math.isclose(m.history[0]['loss'], m.history[0]['mse'], rel_tol=1e-6)
    with pytest.raises(ValueError, match='ReconstructCB'): Learner(nn.Linear(3, 3), (list(X.split(4)), None), cbs=TrainCB()).fit()

def test_several_inputs():
    class Two(nn.Linear):
        def forward(self, a, b): return super().forward(a+b)
    data = [(x, x, y) for x, y in batches()]
    Learner(Two(3, 2), (data, None), F.cross_entropy, cbs=TrainCB(n_inp=2)).fit()

def test_corruption_changes_the_input_and_not_the_target():
    seen = []
    class Id(nn.Linear):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)
    learn = Learner(Id(3, 3), ([(X, Y)], None), cbs=ReconstructCB(lambda x: x*0))
    learn.fit()
    assert seen[0].abs().sum()==0 and learn.targs is X

def test_metrics_are_exact_over_uneven_batches():
    m = MetricsCB(accuracy=Accuracy(), l1=lambda p, t: (p.argmax(1)-t).abs().float().mean())
    learn = learner([m])
    learn.fit(1)
    with torch.no_grad(): preds = learn.model(X)
    row = m.history[-1]
    assert row['accuracy']==(preds.argmax(1)==Y).double().mean().item()
    assert math.isclose(row['loss'], F.cross_entropy(preds, Y).item(), rel_tol=1e-6)
    assert math.isclose(row['l1'], 1-row['accuracy'], rel_tol=1e-6) and all(isinstance(v, (int, float, str)) for v in row.values())

def test_metrics_with_the_protocol_of_torchmetrics():
    class Foreign:
        def reset(self): self.right = self.n = 0
        def update(self, preds, targs): self.right, self.n = self.right + (preds.argmax(1)==targs).sum(), self.n + len(targs)
        def compute(self): return self.right/self.n
    m = MetricsCB(Accuracy(), foreign=Foreign())
    learner([m]).fit(2)
    assert all(math.isclose(r['Accuracy'], r['foreign'], rel_tol=1e-6) for r in m.history)

def test_metrics_ask_the_device_once_an_epoch(monkeypatch):
    m, calls = MetricsCB(Accuracy(), mse=lambda p, t: p.mean()), []
    for name in ('item', 'tolist', 'cpu'):
        old = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, old=old, name=name: (calls.append((name, self.numel())), old(self, *a))[1])
    learn = learner([m])
    m.before_fit(learn)
    learn.fit(1, valid=False)
    assert [n for n, _ in calls].count('cpu')==1 and not [c for c in calls if c[0]=='tolist']

def test_a_fit_with_a_seed_gives_the_same_bits_twice():
    def run():
        set_seed(3)
        dls = DataLoaders.from_tensors(*load_tensors('digits')[:2], bs=64)
        learn = Learner(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), dls, F.cross_entropy, 0.1, [TrainCB(), DeviceCB('cpu')])
        learn.fit(2)
        return weights(learn)
    assert torch.equal(run(), run())

def test_the_optimizer_lives_on_and_can_be_made_anew():
    learn = learner(opt_func=partial(optim.SGD, momentum=0.9), lr=0.1)
    learn.fit(1)
    opt = learn.opt
    learn.fit(1, lr=0.01)
    assert learn.opt is opt and opt.param_groups[0]['lr']==0.01
    learn.fit(1)
    assert opt.param_groups[0]['lr']==0.1
    learn.opt = None
    learn.fit(1)
    assert learn.opt is not opt
    learn.model = nn.Linear(3, 2)
    opt = learn.opt
    learn.fit(1)
    assert learn.opt is not opt                       # other parameters need another optimizer

def test_parameter_groups_keep_their_ratio():
    def groups(params, lr):
        w, b = params
        return optim.SGD([dict(params=[w], lr=lr/10), dict(params=[b])], lr=lr)
    learn = learner(opt_func=groups, lr=0.1)
    learn.fit(1)
    learn.fit(1, lr=0.5)
    assert [g['lr'] for g in learn.opt.param_groups]==pytest.approx([0.05, 0.5])

def test_a_fit_inside_a_fit():
    class InnerCB(Callback):
        def after_epoch(self, learn):
            if learn.training and learn.n_epochs==2: learn.fit(1, cbs=SingleBatchCB(), valid=False)
    spy = Log()
    learn = learner([InnerCB()])
    learn.fit(2, cbs=spy)
    assert learn.handlers is None and spy.log.count('before_fit')==1+2 and spy.log[-1]=='cleanup_fit'
    assert spy.log.count('before_epoch')==4+2

def test_grads_are_off_in_validation_and_modes_are_set():
    seen = []
    class ModeCB(Callback):
        def after_predict(self, learn): seen.append((learn.training, learn.model.training, learn.preds.requires_grad))
    learner([ModeCB()]).fit(1)
    assert set(seen)=={(True, True, True), (False, False, False)}

def test_single_batch():
    spy = Log()
    learner([SingleBatchCB()]).fit(5, cbs=spy)
    assert spy.log.count('before_batch')==1

def test_subclass_and_callbacks_train_alike():
    a, b = learner(lr=0.1), learner(cls=TrainLearner, lr=0.1)
    a.fit(3)
    b.fit(3)
    assert torch.equal(weights(a), weights(b))

def test_momentum_learner_is_momentum():
    a = learner(lr=0.1, opt_func=partial(optim.SGD, momentum=0.8))
    b = MomentumLearner(learner().model, (batches(), None), F.cross_entropy, 0.1, mom=0.8)
    a.fit(3, valid=False)
    b.fit(3)
    assert torch.allclose(weights(a), weights(b), atol=1e-6)

def test_with_cbs_serves_other_classes():
    class Mine:
        log = []
        def callback(self, nm): self.log.append(nm)
        @with_cbs('epoch')
        def go(self): raise CancelEpochException()
    Mine().go()
    assert Mine.log==['before_epoch', 'cleanup_epoch']

def test_lr_find_leaves_no_trace(monkeypatch):
    class InterruptCB(Callback):
        def after_batch(self, learn):
            if learn.iter==1: raise KeyboardInterrupt
    def run(search):
        set_seed(5)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        dls = (TensorDL(X, Y, bs=4, shuffle=True, device='cpu', seed=1), None)
        learn = Learner(model, dls, F.cross_entropy, 0.1, [TrainCB(), MetricsCB()], partial(optim.SGD, momentum=0.9))
        learn.fit(1)
        model.eval()
        state = random.getstate(), np.random.get_state()[1].tolist()
        if search=='yes': learn.lr_find(start_lr=1e-3)
        if search=='interrupted':
            learn.cbs.append(InterruptCB())
            with pytest.raises(KeyboardInterrupt): learn.lr_find()
            learn.cbs.pop()
        assert not model.training and state==(random.getstate(), np.random.get_state()[1].tolist())
        learn.fit(1)
        return torch.cat([t.flatten().float() for t in model.state_dict().values()])
    plain = run('no')
    assert torch.equal(plain, run('yes')) and torch.equal(plain, run('interrupted'))

def test_lr_find_stops_when_it_flies_apart_and_suggests():
    learn = learner(dls=([(X, Y)]*100, None), lr=0.1)
    found = learn.lr_find(start_lr=1e-3, gamma=2)
    assert len(found.lrs)<100 and found.lrs[1]==pytest.approx(2e-3) and 1e-3<=found.suggest()<=found.lrs[-1]

def test_progress_prints_a_line_an_epoch_into_a_file(capsys):
    learner([MetricsCB(accuracy=Accuracy()), ProgressCB(plot=True)]).fit(2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines)==2 and lines[1].startswith('epoch 1  train 0.') and 'valid 0.' in lines[1] and 'accuracy' in lines[1]

def test_progress_without_metrics_or_validation(capsys):
    learner([ProgressCB()]).fit(1)
    assert capsys.readouterr().out==''
    learner([MetricsCB(), ProgressCB()]).fit(2, valid=False)
    assert [o.split()[:3] for o in capsys.readouterr().out.splitlines()]==[['epoch', '0', 'train'], ['epoch', '1', 'train']]

def test_progress_in_a_terminal_does_not_flood(monkeypatch, capsys):
    import sys
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    start = time.time()
    learner([MetricsCB(), ProgressCB(plot=True)], ([(X, Y)]*2000, [(X, Y)])).fit(2)
    out = capsys.readouterr().out
    assert 'epoch' in out and 'Epoch 2/2' in out and out.count('\r') < 20 + 5*(time.time()-start)

def test_progress_leaves_the_learner_alone():
    seen = []
    class LookCB(Callback):
        def after_batch(self, learn): seen.append((learn.dl, learn.epochs))
    data = batches(), batches()
    learner([MetricsCB(), ProgressCB(), LookCB()], data).fit(1)
    assert seen[0]==(data[0], range(1))

def test_a_cancelled_step_keeps_the_gradients_and_the_batch_goes_on():
    class KeepCB(Callback):
        def after_backward(self, learn): raise CancelStepException()
    spy = Log()
    spy.order = -1
    learn = learner(cbs=[spy, KeepCB()])
    before = weights(learn)
    learn.fit(1, valid=False)
    assert torch.equal(before, weights(learn)) and learn.model.weight.grad.abs().sum()>0
    assert spy.log.count('after_batch')==3 and 'after_step' not in spy.log

def test_metrics_that_wait_give_the_same_bits():
    uneven = [(X[i:i+n], Y[i:i+n]) for i, n in ((0, 4), (4, 1), (5, 3), (8, 2))]*5
    def run(numbers):
        m = MetricsCB(accuracy=Accuracy())
        m.together.numbers = numbers
        learner([m], (uneven, batches())).fit(2)
        return m.history
    assert run(0)==run(1)==run(20)==run(1000)

def test_a_loader_may_fill_the_same_memory_again():
    "Through NumPy torch does not see it: 0.2 is right, 0.8 came of judging the last labels five times."
    class Same:
        y = np.zeros(4, np.int64)
        def __iter__(self):
            for i in range(5):
                self.y[:] = i
                yield X[:4], torch.from_numpy(self.y)
    class Fours(nn.Linear):
        def forward(self, x): return F.one_hot(torch.full((len(x),), 4), 5) + 0*super().forward(x)
    m = MetricsCB(accuracy=Accuracy())
    Learner(Fours(3, 5), (Same(), Same()), F.cross_entropy, cbs=[TrainCB(), m]).fit(1)
    assert [r['accuracy'] for r in m.history]==[0.2, 0.2]

def test_outputs_of_varying_length_are_judged_too():
    class Ragged(nn.Linear):
        def forward(self, x): return super().forward(x)[:,None].expand(-1, len(x), -1).transpose(1, 2)       # [N,2,N]
    data = [(X[:n], Y[:n, None].expand(-1, n)) for n in (4, 4, 4, 3, 3, 4, 2)]
    m = MetricsCB(accuracy=Accuracy())
    learn = Learner(Ragged(3, 2), (data, None), F.cross_entropy, 0., [TrainCB(), m])
    learn.fit(1)
    right = sum((learn.model(x).argmax(1)==y).sum().item() for x, y in data)
    assert m.history[0]['accuracy']==right/sum(y.numel() for _, y in data)

def test_large_predictions_do_not_wait():
    assert MetricsCB(mean=lambda p, t: p.mean(), accuracy=Accuracy()).together is None            # one of them is a mean, not a sum
    assert MetricsCB().together is None
    m = MetricsCB(accuracy=Accuracy())
    m.together.numbers = 3
    learner([m]).fit(1)
    assert m.together.kind is None and not m.together.rows

def test_metrics_refuse_names_that_are_taken():
    from miniai.metrics import TopK
    for name in ('loss', 'epoch', 'part'):
        with pytest.raises(ValueError, match=f'{name} is a column already'): MetricsCB(**{name: Accuracy()})
    with pytest.raises(ValueError, match='two metrics have one name'): MetricsCB(TopK(1), TopK(3))

def test_metrics_print_only_if_nobody_shows_the_history(capsys):
    learner([MetricsCB()]).fit(1)
    assert capsys.readouterr().out.count('loss')==2
    learner([MetricsCB(verbose=False)]).fit(1)
    assert capsys.readouterr().out==''
    learner([MetricsCB(), ProgressCB()]).fit(1)
    assert capsys.readouterr().out.count('\n')==1

def test_two_metrics_callbacks_share_the_rows():
    learn = learner([MetricsCB(acc=Accuracy(), verbose=False), MetricsCB(l1=lambda p, t: p.abs().mean(), verbose=False)])
    learn.fit(2)
    assert len(learn.history)==4 and all({'epoch', 'part', 'loss', 'acc', 'l1'}==set(r) for r in learn.history)

def test_the_history_belongs_to_one_fit_and_an_inner_fit_has_its_own():
    class InnerCB(Callback):
        order = 50
        def after_epoch(self, learn):
            if learn.training and learn.n_epochs==2:
                learn.fit(1, valid=False)
                assert len(learn.history)==1+2*learn.epoch
    learn = learner([MetricsCB(verbose=False), InnerCB()])
    learn.fit(2)
    assert [(r['epoch'], r['part']) for r in learn.history]==[(0, 'train'), (0, 'valid'), (1, 'train'), (1, 'valid')]
    learn.fit(1)
    assert len(learn.history)==2

def test_best_of_a_history():
    h = History()
    assert h.best() is None
    for i, v in enumerate([math.nan, 3., 1., 1., math.inf]): h.note(i, 'valid', dict(loss=v))
    assert h.best()['epoch']==2 and h.best('loss', max)['epoch']==1 and h.best(part='train') is None
    with pytest.raises(ValueError, match="Did you mean 'loss'"): h.best('los')

def test_a_stage_has_one_owner():
    for cbs in ([TrainCB(), ReconstructCB()], [TrainCB(), TrainCB()]):
        with pytest.raises(TypeError, match=f'predict is done by {type(cbs[0]).__name__} and by {type(cbs[1]).__name__}'):
            Learner(nn.Linear(3, 2), (batches(),), F.cross_entropy, cbs=cbs).fit()
    with pytest.raises(TypeError, match='predict is done by TrainCB and by TrainLearner'):
        TrainLearner(nn.Linear(3, 2), (batches(),), F.cross_entropy, cbs=TrainCB()).fit()
    class StepCB(Callback):
        def step(self, learn): pass
    with pytest.raises(TypeError, match='step is done by TrainCB and by StepCB'): learner([StepCB()]).fit()

def test_a_broken_property_is_no_missing_method():
    class PropertyCB(Callback):
        @property
        def after_batch(self): return self.nothing
    with pytest.raises(AttributeError, match='nothing'): learner([PropertyCB()]).fit()
    with pytest.raises(AttributeError, match='nothing'): run_cbs([PropertyCB()], 'after_batch')

def test_every_failure_of_a_cleanup_is_kept():
    a, b, c = (Log('cleanup_fit', exc) for exc in (ValueError('first'), TypeError('second'), OSError('third')))
    with pytest.raises(ValueError, match='first') as e: learner().fit(1, cbs=[a, b, c])
    text = ' '.join(e.value.__notes__)
    assert 'second' in text and 'third' in text

def test_with_cbs_returns_what_the_method_returns():
    class Mine:
        def callback(self, nm): pass
        @with_cbs('fit')
        def go(self, x, y=1): return x+y
    assert Mine().go(1, y=2)==3

def test_around_encloses_all_others_for_one_fit():
    log = []
    class FrameCB(Callback):
        def before_fit(self, learn): around(learn, self, 'after_loss', lambda l: log.append('first'), lambda l: log.append('last'))
    class WorkCB(Callback):
        order = -100
        def after_loss(self, learn): log.append('work')
    frame = FrameCB()
    learn = learner([WorkCB()], ([(X, Y)], None))
    learn.fit(1, cbs=frame)
    learn.fit(1)
    assert log==['first', 'work', 'last', 'work']
    with pytest.raises(TypeError, match='needs to come around other callbacks'): around(learn, frame, 'after_loss')

def test_the_fastest_way_to_a_wrong_rate_is_closed():
    "Who sets the rate: written down in `fit`, and true in every order."
    seen = []
    class RateCB(Callback):
        def after_step(self, learn): seen.append([g['lr'] for g in learn.opt.param_groups])
    def rates(learn, **kw):
        seen.clear()
        learn.fit(1, valid=False, **kw)
        assert all(o==seen[0] for o in seen)
        return seen[0]
    learn = learner([RateCB()], lr=0.1)
    assert rates(learn, lr=0.3)==[0.3] and rates(learn)==[0.1]
    w, b = learn.model.parameters()
    learn.opt = optim.Adam([dict(params=[w], lr=0.01), dict(params=[b], lr=0.02)])
    assert rates(learn)==[0.01, 0.02] and rates(learn, lr=0.05)==[0.05, 0.1] and rates(learn)==[0.01, 0.02]
    learn.opt.param_groups[0]['lr'] = 0.
    assert rates(learn, lr=0.05)==[0.05, 0.05] and rates(learn)==[0., 0.02]
    learn.opt = None
    assert rates(learn)==[0.1]
    learn.opt = optim.SGD(nn.Linear(3, 2).parameters(), 0.1)
    with pytest.raises(ValueError, match="holds none of the model's parameters"): learn.fit(1)

def test_an_optimizer_of_your_own_is_searched_with_and_put_back():
    learn = learner(dls=([(X, Y)]*50, None))
    learn.opt = opt = optim.Adam(learn.model.parameters(), 0.01)
    learn.fit(1)
    before, state = weights(learn), str(opt.state_dict())
    found = learn.lr_find(start_lr=1e-4)
    assert learn.opt is opt and str(opt.state_dict())==state and torch.equal(before, weights(learn)) and len(found.lrs)>5

def test_looking_leaves_callbacks_as_they_were():
    class CountCB(Callback):
        def __init__(self): self.n, self.seen, self.last = 0, [], None
        def after_loss(self, learn):
            self.n, self.last = self.n+1, learn.loss                    # a tensor in a graph cannot be copied deeply
            self.seen.append(learn.iter)
    class FriendCB(Callback):
        def __init__(self, friend): self.friend = friend
        def after_loss(self, learn): assert self.friend in learn.cbs    # copies know each other
    count = CountCB()
    learn = learner([count, FriendCB(count)])
    cbs = list(learn.cbs)
    for look in (learn.look, lambda: learn.look('after_backward', True), learn.lr_find, learn.summary): look()
    assert count.n==0 and count.seen==[] and count.last is None and all(a is b for a, b in zip(learn.cbs, cbs))
    learn.fit(1, valid=False)
    last = count.last
    learn.look()
    assert count.n==3 and count.last is last

def test_looking_keeps_the_history():
    learn = learner([MetricsCB(verbose=False)])
    learn.fit(1)
    rows = list(learn.history)
    learn.look()
    assert learn.history==rows and len(rows)==2

def test_looking_knows_generators_of_samplers():
    from torch.utils.data import DataLoader, RandomSampler, TensorDataset
    def run(look):
        data = TensorDataset(X, Y)
        dl = DataLoader(data, 4, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(3)))
        learn = learner(dls=(dl, None))
        if look:
            learn.lr_find()
            learn.look(training=True)
        learn.fit(1)
        return weights(learn)
    assert torch.equal(run(False), run(True))

def test_an_event_that_does_not_come_is_said():
    with pytest.raises(ValueError, match='after_step did not come in validation'): learner().look('after_step')
    with pytest.raises(ValueError, match='Did you mean'): learner().look('after_los')

def test_methods_of_later_lessons_say_what_to_import():
    "In a fresh process, since another test may have imported them."
    code = """
from miniai.learner import Learner, TrainCB
from torch import nn
learn, later = Learner(nn.Linear(1, 1), cbs=TrainCB()), dict(look='look', show_batch='look', show_results='look', summary='look', capture_preds='augment',
                                                             show_image_batch='augment')
for name, module in later.items():
    assert not hasattr(learn, name)
    try: getattr(learn, name)
    except AttributeError as e: assert f'import miniai.{module}.' in str(e), e
import miniai.augment, miniai.look
assert all(callable(getattr(learn, name)) for name in later)
assert not [o for o in dir(learn) if o.startswith('_orig_')]
"""
    subprocess.run([sys.executable, '-c', code], check=True)

class Pair(nn.Module):
    "A model that gives a reconstruction and its code."
    def __init__(self, form):
        super().__init__()
        self.a, self.b, self.form = nn.Linear(3, 2), nn.Linear(2, 3), form
    def forward(self, x):
        z = self.a(x)
        return self.form(self.b(z), z)

@pytest.mark.parametrize('form', [lambda out, z: (out, z), lambda out, z: dict(out=out, z=z), lambda out, z: [out, (z, z)]])
def test_models_that_give_more_than_one_tensor(form):
    def loss(preds, targs): return F.mse_loss(first_tensor(preds), targs)
    learn = Learner(Pair(form), (list(X.split(4)), list(X.split(4))), loss, cbs=[ReconstructCB(), MetricsCB(mse=MSE(), verbose=False)])
    learn.fit(2)
    assert math.isclose(learn.history[-1]['loss'], learn.history[-1]['mse'], rel_tol=1e-6)

def test_results_of_a_model_that_gives_a_tuple():
    class Two(nn.Conv2d):
        def forward(self, x): return super().forward(x), x
    auto = Learner(Two(1, 1, 3, padding=1), ([IMS], [IMS]), lambda p, t: F.mse_loss(p[0], t), cbs=ReconstructCB())
    assert auto.show_results(3).size==9

def test_a_term_of_the_loss_is_seen_by_all():
    term = LossTermCB(lambda learn: learn.model.weight.square().sum(), weight=0.5)
    learn = learner([term, MetricsCB(verbose=False)], lr=0., dls=([(X, Y)], [(X, Y)]))
    learn.fit(1)
    want = F.cross_entropy(learn.model(X), Y) + 0.5*learn.model.weight.square().sum()
    assert all(math.isclose(r['loss'], want.item(), rel_tol=1e-6) for r in learn.history)
    assert math.isclose(term.value.item(), learn.model.weight.square().sum().item(), rel_tol=1e-6)
    with pytest.raises(ValueError, match='one number in a tensor, got float32'): learner([LossTermCB(lambda l: l.preds)]).fit()
    with pytest.raises(ValueError, match='got float 1.0'): learner([LossTermCB(lambda l: 1.)]).fit()
    with pytest.raises(TypeError, match='function of the learner'): LossTermCB(0.1)

class Course:
    "A learner as learners write it in a course: no targs, no history, no handlers, no loader."
    def __init__(self, model, dls, loss_func, lr, cbs):
        self.model, self.dls, self.loss_func, self.lr, self.cbs = model, dls, loss_func, lr, cbs
    def callback(self, nm): run_cbs(self.cbs, nm, self)
    @with_cbs('batch')
    def one_batch(self):
        for nm in ('predict', 'after_predict', 'get_loss', 'after_loss'): self.callback(nm)
        if self.training:
            for nm in ('backward', 'after_backward', 'step', 'after_step', 'zero_grad'): self.callback(nm)
    @with_cbs('epoch')
    def one_epoch(self):
        for self.iter, self.batch in enumerate(self.dl): self.one_batch()
    @with_cbs('fit')
    def _fit(self):
        for self.epoch in range(self.n_epochs):
            for self.training in (True, False):
                self.model.train(self.training)
                self.dl = self.dls.train if self.training else self.dls.valid
                with torch.set_grad_enabled(self.training): self.one_epoch()
    def fit(self, n_epochs):
        self.n_epochs, self.opt = n_epochs, optim.SGD(self.model.parameters(), self.lr)
        self._fit()

def test_callbacks_work_with_the_learner_of_a_course(capsys):
    class OwnTrainCB(Callback):                                      # sets no targs
        def predict(self, learn): learn.preds = learn.model(learn.batch[0])
        def get_loss(self, learn): learn.loss = learn.loss_func(learn.preds, learn.batch[1])
        def backward(self, learn): learn.loss.backward()
        def step(self, learn): learn.opt.step()
        def zero_grad(self, learn): learn.opt.zero_grad()
    m = MetricsCB(acc=Accuracy())
    learn = Course(nn.Linear(3, 2), DataLoaders(batches(), batches()), F.cross_entropy, 0.1,
                   [OwnTrainCB(), DeviceCB('cpu'), m, ProgressCB(), LossTermCB(lambda l: l.model.weight.abs().sum(), 1e-3)])
    learn.fit(2)
    assert len(m.history)==4 and learn.history is m.history and len(capsys.readouterr().out.splitlines())==2
    learn.cbs = [OwnTrainCB(), finder := LRFinderCB()]
    learn.fit(1)
    assert len(finder.lrs)==3

def test_metrics_of_torchmetrics_stand_in_the_same_place():
    tm = pytest.importorskip('torchmetrics')
    m = MetricsCB(Accuracy(), theirs=tm.classification.MulticlassAccuracy(2, average='micro'))
    learner([m]).fit(3)
    assert len(m.history)==6 and all(math.isclose(r['Accuracy'], r['theirs'], rel_tol=1e-6) for r in m.history)

IMS = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
def pictures(**kw):
    set_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 3))
    dls = TensorDL(IMS, torch.arange(6)%3, bs=4, shuffle=True, device='cpu', seed=1), [(IMS, torch.arange(6)%3)]
    return Learner(model, dls, F.cross_entropy, 0.1, [TrainCB(), MetricsCB()], optim.Adam, **kw)

@pytest.mark.parametrize('look', [lambda l: l.look(), lambda l: l.look('after_backward', True), lambda l: l.show_batch(),
                                  lambda l: l.show_results(), lambda l: l.summary()], ids=['look', 'training', 'batch', 'results', 'summary'])
def test_looking_leaves_no_trace(look):
    def run(look):
        learn = pictures()
        learn.fit(1)
        learn.model.eval()
        if look: look(learn)
        assert not any(m.training for m in learn.model.modules()) and learn.handlers is None
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in learn.model.modules())
        learn.fit(1)
        return torch.cat([t.flatten().float() for t in learn.model.state_dict().values()])
    assert torch.equal(run(None), run(look))

def test_looking_does_not_use_up_a_generator():
    with pytest.raises(TypeError, match='use up a batch'): learner(dls=((b for b in batches()), None)).look(training=True)

def test_a_batch_is_shown_as_the_model_gets_it():
    class DarkCB(Callback):
        def before_batch(self, learn): learn.batch = (learn.batch[0]*0, learn.batch[1])
    learn = pictures()
    axs = learn.show_batch(3, names=['a', 'b', 'c'])
    assert axs.flat[0].images[0].get_array().max()>0 and axs.flat[0].get_title() in ('a', 'b', 'c')
    learn.cbs.append(DarkCB())
    assert learn.show_batch(3).flat[0].images[0].get_array().max()==0

def test_results_of_a_classifier_and_of_an_autoencoder():
    axs = pictures().show_results(4)
    assert axs.size==4 and all(ax.get_title()==str(i%3) or ax.get_title().endswith(f'not {i%3}') for i, ax in enumerate(axs.flat))
    auto = Learner(nn.Conv2d(1, 1, 3, padding=1), ([IMS], [IMS]), cbs=ReconstructCB())
    axs = auto.show_results(3)
    assert axs.shape==(3, 3)
    ims = [ax.images[0].get_array() for ax in axs.flat]
    assert all(np.allclose(abs(ims[i]-ims[i+3]), ims[i+6], atol=1e-6) for i in range(3))

def test_the_valley_is_the_middle_of_the_longest_fall():
    f = LRFinderCB()
    for losses, want in (([3, 2, 3, 2, 1.5, 1, 4], (2, 5)), ([1, 2, 3], None), ([3., 2., 1.], (0, 2)), ([5, 4, 5, 4, 3], (2, 4))):
        f.lrs, f.smooth = [10.**i for i in range(len(losses))], lambda losses=losses: losses
        assert f.valley()==(None if want is None else pytest.approx(10**(sum(want)/2)))

def test_half_a_step_does_not_go_into_the_next_fit():
    class StopCB(Callback):
        def after_backward(self, learn): raise KeyboardInterrupt
    a, b = learner(), learner()
    with pytest.raises(KeyboardInterrupt): a.fit(1, cbs=StopCB())
    a.fit(1)
    b.fit(1)
    assert torch.equal(weights(a), weights(b))

def test_progress_of_a_loader_that_does_not_know_its_length(capsys):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): return iter(zip(X, Y))
    learner([MetricsCB(), ProgressCB()], (torch.utils.data.DataLoader(Stream(), 4), None)).fit(1)
    assert 'train 0.' in capsys.readouterr().out

# --- what a fit gives back
def test_a_fit_inside_a_fit_gives_the_rate_back():
    "Also to an optimizer that the Learner made: at a wrong rate the outer fit would go on without a word."
    rates = []
    class InnerCB(Callback):
        def after_epoch(self, learn):
            if learn.n_epochs==2 and learn.training: learn.fit(1, valid=False, cbs=SingleBatchCB(), lr=1e-9)
        def after_step(self, learn): rates.append(learn.opt.param_groups[0]['lr'])
    learner(cbs=[InnerCB()]).fit(2)
    assert rates==[0.1, 0.1, 0.1, 1e-9]*2

def test_a_fit_inside_validation_gives_the_mode_back():
    modes = []
    class InnerCB(Callback):
        def after_batch(self, learn):
            if learn.n_epochs==2 and not learn.training and learn.iter==0: learn.fit(1, valid=False)
            if learn.n_epochs==2: modes.append((learn.training, learn.model.training))
    learner(cbs=[InnerCB()]).fit(2)
    assert {*modes}=={(True, True), (False, False)}

def test_a_search_leaves_nothing_behind():
    "Neither the place of its last batch nor, for a group with a rate of its own, another ratio."
    def groups(params, lr):
        w, b = params
        return optim.SGD([dict(params=[w], lr=lr), dict(params=[b], lr=0.001)])
    learn = Learner(nn.Linear(3, 2), (batches(), batches()), F.cross_entropy, 0.01, [TrainCB()], groups)
    learn.fit(1)
    before = dict(vars(learn))
    learn.lr_find(start_lr=1e-3)
    assert vars(learn).keys()==before.keys() and all(vars(learn)[k] is v for k, v in before.items())
    learn.fit(1)
    assert [g['lr'] for g in learn.opt.param_groups]==[0.01, 0.001]

@pytest.mark.parametrize('level', ['batch', 'epoch', 'fit'])
def test_no_error_hides_behind_a_cancel(level):
    class BadCB(Callback): pass
    def fails(self, learn): raise OSError('disk full')
    setattr(BadCB, f'cleanup_{level}', fails)
    with pytest.raises(OSError, match='disk full'): learner(cbs=[SingleBatchCB(), BadCB()]).fit(1)
    class CancelCB(Callback):
        order = -1
    setattr(CancelCB, f'cleanup_{level}', lambda self, learn: (_ for _ in ()).throw(CancelFitException()))
    with pytest.raises(OSError, match='disk full'): learner(cbs=[CancelCB(), BadCB()]).fit(1)

@pytest.mark.parametrize('dls', [None, (batches(),), (batches(), None)])
def test_judging_without_validation_data_is_refused(dls):
    with pytest.raises(ValueError, match='no validation data'): Learner(nn.Linear(3, 2), dls, F.cross_entropy, cbs=TrainCB()).fit(3, train=False)

def test_notes_do_not_blame_a_batch_that_was_good():
    class Torn:
        def __iter__(self):
            yield X[:4], Y[:4]
            raise OSError('torn')
    with pytest.raises(OSError) as e: Learner(nn.Linear(3, 2), (Torn(),), F.cross_entropy, cbs=TrainCB()).fit(1)
    assert e.value.__notes__==['in epoch 0, training, last batch 0: tuple(float32 [4,3], int64 [4])']
    class Early(Callback):
        def before_epoch(self, learn): raise OSError('torn')
    with pytest.raises(OSError) as e: learner(cbs=[Early()]).fit(1)
    assert e.value.__notes__[-1]=='in epoch 0, training, no batch yet'
    learn = learner()
    learn.fit(2)
    class Odd(Callback): order = 'x'
    with pytest.raises(TypeError) as e: learn.fit(1, cbs=Odd())
    assert not hasattr(e.value, '__notes__')                  # it is not of the fit before

def test_sizes_of_odd_batches():
    assert first_tensor(('cat', X)) is X is first_tensor((dict(name='cat'), dict(image=X))) and first_tensor(()) == ()
    assert batch_size((['a', 'b', 'c'], X))==len(X) and batch_size(X.numpy())==len(X)
    for o in (('a', 'b'), (), torch.tensor(1.), None):
        with pytest.raises(ValueError, match='batch_size: no tensor'): batch_size(o)

def test_a_cancel_in_a_clean_up_does_not_drive_out_a_higher_one():
    class LowCB(Callback):
        def cleanup_batch(self, learn): raise CancelEpochException()
    learn = learner(cbs=[SingleBatchCB(), LowCB()])
    epochs = []
    class CountCB(Callback):
        def before_epoch(self, learn): epochs.append(learn.epoch)
    learn.fit(3, cbs=CountCB())
    assert epochs==[0]

def test_a_refused_fit_keeps_the_history():
    learn = learner(cbs=[MetricsCB(verbose=False)])
    learn.fit(2)
    with pytest.raises(TypeError, match='is done by'): learn.fit(1, cbs=ReconstructCB())
    assert len(learn.history)==4

def test_copies_share_what_cannot_be_copied():
    "Also where it is met a second time: a copy that fails must not leave half of it behind."
    class KeepCB(Callback):
        def __init__(self, losses): self.losses, self.log = losses, dict(losses=losses)
    losses = [X[0].clone().requires_grad_()*2]                          # in a graph
    a, b = copy_cbs([KeepCB(losses), KeepCB(losses)])
    for o in (a, b): assert o.losses is losses is o.log['losses']

def test_the_generator_of_a_batch_sampler_is_kept():
    class Batches:
        def __init__(self): self.generator = torch.Generator().manual_seed(0)
        def __len__(self): return 3
        def __iter__(self): return iter(torch.randperm(9, generator=self.generator).split(3))
    sampler = Batches()
    dl = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_sampler=sampler)
    state = sampler.generator.get_state()
    learner(dls=(dl, None)).lr_find()
    assert torch.equal(state, sampler.generator.get_state())
