"The Learner under odd use: errors, interruptions, nesting, strange loaders, several optimizers, exact repeats."
import math, random, time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

from miniai.core import set_seed
from miniai.datasets import DataLoaders, TensorDL, load_tensors
from miniai.events import CancelStepException, Handlers, event_names, stages
from miniai.learner import (Callback, CancelBatchException, CancelEpochException, CancelFitException, DeviceCB, Learner, MetricsCB,
                            MomentumLearner, ProgressCB, ReconstructCB, SingleBatchCB, TrainCB, TrainLearner, with_cbs)
from miniai.metrics import Accuracy, MSE

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)%2
def batches(bs=4): return list(zip(X.split(bs), Y.split(bs)))
def learner(cbs=(), dls=None, cls=Learner, **kw):
    set_seed(0)
    return cls(nn.Linear(3, 2), (batches(), batches()) if dls is None else dls, F.cross_entropy, cbs=[TrainCB(), *cbs], **kw)
def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

class Log(Callback):
    "Writes down every event, and raises `exc` at one of them."
    order = 50
    def __init__(self, at=None, exc=None): self.log, self.at, self.exc = [], at, exc
    def __getattr__(self, name):
        if name.startswith('__') or name not in event_names | set(stages): raise AttributeError(name)
        def f(learn):
            self.log.append(name)
            if name==self.at: raise self.exc
        return f

@pytest.mark.parametrize('event', sorted(event_names | set(stages)))
@pytest.mark.parametrize('exc', [ValueError('boom'), KeyboardInterrupt()], ids=['error', 'interrupt'])
def test_whatever_fails_all_is_cleaned_up(event, exc):
    spy, late = Log(event, exc), Log()
    late.order = 60
    learn = learner()
    learn.model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1))
    mine, modes = list(learn.cbs), (True, True, False)
    learn.model[1].eval()
    with pytest.raises(type(exc)): learn.fit(1, cbs=[spy, late])
    assert learn.cbs==mine and learn.handlers is None and tuple(m.training for m in learn.model.modules())==modes
    assert all(p.grad is None for p in learn.model.parameters())
    count = lambda o: late.log.count(f'cleanup_{o}')
    assert count('fit')==1
    assert count('epoch')==spy.log.count('before_epoch') and count('batch')==spy.log.count('before_batch')
    learn.fit(1)                                        # and it can be used again

@pytest.mark.parametrize('exc, batches_seen, epochs_seen', [(CancelBatchException, 3, 2), (CancelEpochException, 1, 2), (CancelFitException, 1, 1)])
def test_a_cancel_exception_ends_its_own_level_only(exc, batches_seen, epochs_seen):
    spy = Log('after_predict', exc())
    learner().fit(1, valid=False, cbs=spy)
    assert spy.log.count('before_batch')==batches_seen and 'backward' not in spy.log and 'after_batch' not in spy.log
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
    assert e.value.__notes__==['in OddCB.after_loss', 'in epoch 1, training batch 2: tuple(float32 [2,3], int64 [2])']

def test_errors_in_model_and_loader_say_where_too():
    class Bad(nn.Linear):
        def forward(self, x): raise RuntimeError('bad model')
    learn = Learner(Bad(3, 2), (batches(), None), F.cross_entropy, cbs=TrainCB())
    with pytest.raises(RuntimeError, match='bad model') as e: learn.fit()
    assert 'in TrainCB.predict' in e.value.__notes__ and any('training batch 0' in n for n in e.value.__notes__)
    def loader():
        yield X, Y
        raise OSError('disk')
    with pytest.raises(OSError, match='disk') as e: Learner(nn.Linear(3, 2), (loader(), None), F.cross_entropy, cbs=TrainCB()).fit()
    assert any('training batch 0' in n for n in e.value.__notes__)

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
    with pytest.raises(TypeError, match=r'make an object of it: TrainCB\(\)'): Learner(nn.Linear(3, 2), (batches(),), cbs=[TrainCB]).fit()
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
        assert [r['train'] for r in m.history]==['train']

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
    b.cbs = []
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
    assert spy.log.count('after_batch')==3 and 'step' not in spy.log and 'zero_grad' not in spy.log

def test_metrics_that_wait_give_the_same_bits():
    uneven = [(X[i:i+n], Y[i:i+n]) for i, n in ((0, 4), (4, 1), (5, 3), (8, 2))]*5
    def run(together):
        m = MetricsCB(accuracy=Accuracy())
        m.together = together
        learner([m], (uneven, batches())).fit(2)
        return m.history
    assert run(1)==run(2)==run(16)

def test_metrics_notice_a_loader_that_fills_the_same_tensors():
    class Same:
        y = torch.zeros(4, dtype=torch.int64)
        def __iter__(self):
            for i in range(4): yield X[:4], self.y.fill_(i%2)
    with pytest.raises(RuntimeError, match='fill the same tensors'): learner([MetricsCB(accuracy=Accuracy())], (Same(), None)).fit(1)
    m = MetricsCB(accuracy=Accuracy())
    m.together = 1
    learner([m], (Same(), None)).fit(1)

def test_large_predictions_do_not_wait():
    m = MetricsCB(mean=lambda p, t: p.mean(), accuracy=Accuracy())
    learner([m]).fit(1)
    assert m.group==1                                  # one of them is a mean, not a sum
    m = MetricsCB(accuracy=Accuracy())
    m.small = 3
    learner([m]).fit(1)
    assert m.group==1 and m.waiting==[]

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
    from miniai.learner import LRFinderCB
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
