"Learners of the fast.ai course find the names they know, where they know them, and course-like code runs."
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import nn, optim

names = dict(
    datasets='inplace collate_dict show_image subplots get_grid show_images DataLoaders',
    training='accuracy report Dataset fit get_dls', conv='conv def_device to_device collate_device',
    learner='''CancelFitException CancelBatchException CancelEpochException Callback run_cbs SingleBatchCB to_cpu MetricsCB
        DeviceCB TrainCB ProgressCB with_cbs Learner TrainLearner MomentumLearner LRFinderCB''',
    init='BatchTransformCB', sgd='BaseSchedCB BatchSchedCB EpochSchedCB HasLearnCB RecorderCB', augment='CapturePreds',
    accel='MixedPrecision', callbacks='''BatchSchedCB BatchTransformCB CapturePreds EpochSchedCB HasLearnCB MixedPrecision RecorderCB
        DeviceCB TrainCB MetricsCB ProgressCB SingleBatchCB LRFinderCB''')

@pytest.mark.parametrize('module', names)
def test_names_can_be_imported_with_a_star(module):
    assert set(names[module].split()) <= set(import_module(f'miniai.{module}').__all__)

@pytest.fixture(scope='module')
def dls():
    from miniai.datasets import DataLoaders, inplace, load
    dd = load('digits')
    @inplace
    def transformi(b): b['image'] = [TF.to_tensor(o) for o in b['image']]
    return DataLoaders.from_dd(dd.with_transform(transformi), 64, num_workers=0)

def get_model():
    from miniai.conv import conv
    return nn.Sequential(conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 16), conv(16, 10, act=False), nn.Flatten())

def test_by_hand(dls):
    from miniai.conv import def_device, to_device
    from miniai.training import accuracy, fit
    torch.manual_seed(1)
    model = get_model().to(def_device)
    xb, yb = to_device(next(iter(dls.train)))
    assert model(xb).shape==(64, 10) and 0<=accuracy(model(xb), yb)<=1
    loss, acc = fit(2, model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.4), dls.train, dls.valid)
    assert isinstance(loss, float) and 0<=acc<=1

def test_autoencoder_on_one_screen(dls):
    from miniai.autoencoder import deconv
    from miniai.conv import conv
    ae = nn.Sequential(nn.ZeroPad2d(2), conv(1, 2), conv(2, 4), deconv(4, 2), deconv(2, 1, act=False), nn.ZeroPad2d(-2), nn.Sigmoid())
    xb, _ = next(iter(dls.train))
    assert ae(xb).shape==xb.shape and F.mse_loss(ae(xb), xb)>0

def test_learners(dls, capsys):
    from miniai.learner import DeviceCB, Learner, MetricsCB, MomentumLearner, ProgressCB, SingleBatchCB, TrainCB, TrainLearner
    from miniai.metrics import Accuracy
    cbs = [DeviceCB(), MetricsCB(accuracy=Accuracy()), ProgressCB(plot=True)]
    TrainLearner(get_model(), dls, F.cross_entropy, lr=0.2, cbs=cbs).fit(1)
    Learner(get_model(), dls, F.cross_entropy, lr=0.2, cbs=[TrainCB(), *cbs]).fit(1, cbs=[SingleBatchCB()])
    found = MomentumLearner(get_model(), dls, F.cross_entropy, lr=0.1, cbs=cbs).lr_find(max_epochs=1)
    assert found.lrs and found.losses and 'accuracy' in capsys.readouterr().out

def test_lr_finder_as_a_callback(dls):
    from miniai.learner import LRFinderCB, TrainLearner
    finder = LRFinderCB(gamma=1.5)
    TrainLearner(get_model(), dls, F.cross_entropy, lr=1e-4, cbs=[finder]).fit(2)
    assert len(finder.lrs)==len(finder.losses) and finder.lrs[1]==pytest.approx(1.5e-4)

def test_callbacks_that_learners_write(dls):
    from miniai.learner import Callback, CancelFitException, Learner, TrainCB, run_cbs
    class CompletionCB(Callback):
        def before_fit(self, learn): self.count = 0
        def after_batch(self, learn):
            self.count += 1
            if self.count==3: raise CancelFitException()
        def cleanup_fit(self, learn): self.done = True
    cb = CompletionCB()
    Learner(get_model(), dls, F.cross_entropy, cbs=[TrainCB(), cb]).fit(1)
    assert cb.count==3 and cb.done
    run_cbs([cb], 'before_fit')
    assert cb.count==0

def trained(dls, *cbs):
    "A learner with the course's usual callbacks."
    from miniai.learner import DeviceCB, Learner, MetricsCB, TrainCB
    from miniai.metrics import Accuracy
    return Learner(get_model(), dls, F.cross_entropy, lr=0.1, cbs=[TrainCB(), DeviceCB(), MetricsCB(accuracy=Accuracy()), *cbs])

def test_schedulers_and_recorders(dls):
    from functools import partial
    from torch.optim import lr_scheduler
    from miniai.sgd import BaseSchedCB, BatchSchedCB, EpochSchedCB, HasLearnCB, RecorderCB
    def _lr(cb): return cb.pg['lr']
    tmax = 2*len(dls.train)
    sched = BatchSchedCB(partial(lr_scheduler.CosineAnnealingLR, T_max=tmax))
    rec = RecorderCB(lr=_lr)
    trained(dls, sched, rec).fit(2)
    assert isinstance(sched, BaseSchedCB) and len(rec.recs['lr'])==tmax and rec.recs['lr'][0]==0.1 and rec.recs['lr'][-1]<1e-3
    assert isinstance(sched.schedo, lr_scheduler.CosineAnnealingLR)
    rec.plot()
    sched = EpochSchedCB(partial(lr_scheduler.StepLR, step_size=1, gamma=0.5))
    xtra, rec = [sched, RecorderCB(lr=lambda cb: cb.pg['lr'], loss=lambda learn: learn.loss)], None
    trained(dls, *xtra).fit(2)
    assert sorted(set(xtra[1].recs['lr']))==[0.05, 0.1] and len(xtra[1].recs['loss'])==tmax
    class KeepCB(HasLearnCB):
        def after_batch(self, learn): self.same = self.learn is learn
    keep = KeepCB()
    trained(dls, keep).fit(1)
    assert keep.same and keep.learn is None

def test_batch_transforms(dls):
    from miniai.init import BatchTransformCB
    from miniai.learner import Callback, SingleBatchCB
    xmean, xstd = 0.28, 0.35
    def _norm(b): return (b[0]-xmean)/xstd, b[1]
    class SeeCB(Callback):
        def __init__(self): self.seen = {}
        def after_batch(self, learn): self.seen[learn.training] = learn.batch[0].min().item()
    for kw, changed in (({}, {True, False}), (dict(on_val=False), {True}), (dict(on_train=False), {False})):
        see = SeeCB()
        trained(dls, BatchTransformCB(_norm, **kw), see).fit(1)
        assert {k for k, v in see.seen.items() if v<0}==changed
    assert BatchTransformCB(tfm=_norm, on_train=True, on_val=True).tfm is _norm

def test_looking_at_batches_and_predictions(dls):
    from miniai.augment import CapturePreds
    learn = trained(dls)
    assert len(learn.show_image_batch(max_n=6).flat)>=6
    table = learn.summary()
    assert 'Conv2d' in str(table)
    cp = CapturePreds()
    learn.fit(1, train=False, cbs=cp)
    n = len(dls.valid.dataset)
    assert len(cp.all_inps)==len(cp.all_preds)==len(cp.all_targs)==n
    preds, targs = learn.capture_preds()
    assert torch.equal(preds, cp.all_preds) and torch.equal(targs, cp.all_targs)
    flip = lambda b: (b[0].flip(-1), b[1])
    from miniai.init import BatchTransformCB
    preds, targs, inps = learn.capture_preds(cbs=[BatchTransformCB(flip, on_val=True)], inps=True)
    assert torch.equal(inps, cp.all_inps.flip(-1)) and not torch.equal(preds, cp.all_preds)

def test_half_precision(dls):
    from miniai.accel import MixedPrecision
    from miniai.learner import DeviceCB, Learner, MetricsCB, ProgressCB
    from miniai.metrics import Accuracy
    learn = Learner(get_model(), dls, F.cross_entropy, lr=0.1, cbs=[DeviceCB(), MixedPrecision(), MetricsCB(accuracy=Accuracy()), ProgressCB(plot=True)])
    learn.fit(1)
    assert learn.history[-1]['loss']<3 and learn.preds.dtype==torch.float32

def test_lr_find_takes_the_names_of_the_course(dls):
    from miniai.learner import MomentumLearner
    found = MomentumLearner(get_model(), dls, F.cross_entropy, lr=0.1).lr_find(gamma=1.5, max_mult=4, start_lr=1e-4, max_epochs=1)
    assert found.gamma==1.5 and found.max_mult==4 and found.lrs[0]==1e-4
