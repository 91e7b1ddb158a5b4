"""What the Learner costs a batch, beside a bare loop and, where they are installed (pip install -e '.[bench]'), its peers.

A model of one number and 235 ready batches of 256, one thread. Overhead is the time of an epoch less that of the bare loop,
by batch: between the least times of `rounds` interleaved rounds; in brackets mean ± standard deviation of the rounds. An epoch is the difference between fits of four epochs and of one, so
what a framework does before and after a fit does not count. `full` is a run as people have it: device, loss, accuracy,
progress with curves. The last table has the CNN of the lesson *cnn* in place of the one number, two threads."""
import argparse, io, logging, os, sys, warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

os.environ['TQDM_MININTERVAL'] = '0.25'                 # all bars move four times a second
import torch
import torch.nn.functional as F
from torch import nn, optim

from miniai.cnn import simple_cnn
from miniai.learner import DeviceCB, Learner, MetricsCB, ProgressCB, TrainCB
from miniai.metrics import Accuracy
from report import interleaved, report, spread

n, bs, short, long = 235, 256, 1, 4

def bare(model, loss_func, batches):
    "Epochs of the loop that everything is measured against."
    def run(epochs):
        opt = optim.SGD(model.parameters(), 0.01)
        for _ in range(epochs):
            for xb, yb in batches:
                loss_func(model(xb), yb).backward()
                opt.step()
                opt.zero_grad()
    return run

def ours(model, loss_func, batches, full=False):
    cbs = [DeviceCB('cpu'), MetricsCB(accuracy=Accuracy()), ProgressCB(plot=True)] if full else []
    return Learner(model, (batches, None), loss_func, 0.01, [TrainCB(), *cbs]).fit

class Ready:
    "Batches that are there already, as a loader for those who ask a list for more than a list has."
    def __init__(self, batches, *args, **kwargs): self.batches, self.bs, self.dataset, self.device = batches, bs, batches, torch.device('cpu')
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.batches)
    def to(self, device): return self

def fastai(model, loss_func, batches, full=False):
    import fastai.callback.progress
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner as Theirs
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper
    dls = DataLoaders(Ready(batches), Ready([]), device='cpu')
    learn = Theirs(dls, model, loss_func=loss_func, lr=0.01, opt_func=partial(OptimWrapper, opt=optim.SGD), metrics=[accuracy] if full else [],
                   train_bn=True)
    if full: learn.recorder.train_metrics = True
    else: learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ in ('ProgressCallback', 'Recorder')])
    return learn.fit

def lightning(model, loss_func, batches, full=False):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import TQDMProgressBar
    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model
        def training_step(self, batch, i):
            preds = self.model(batch[0])
            loss = loss_func(preds, batch[1])
            if full:
                acc = (preds.argmax(1)==batch[1]).float().mean()
                self.log_dict(dict(loss=loss, accuracy=acc), prog_bar=True, on_step=False, on_epoch=True, batch_size=bs)
            return loss
        def configure_optimizers(self): return optim.SGD(self.parameters(), 0.01)
    quiet = dict(accelerator='cpu', logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=full)
    bar = [TQDMProgressBar(refresh_rate=50)] if full else []        # its default draws after each batch
    return lambda epochs: Trainer(max_epochs=epochs, callbacks=bar, **quiet).fit(Module(), Ready(batches))

def skorch(model, loss_func, batches, full=False):
    from skorch import NeuralNet
    from skorch.callbacks import PassthroughScoring, ProgressBar
    class Criterion(nn.Module):
        def forward(self, preds, targs): return loss_func(preds, targs)
    class Net(NeuralNet):
        def train_step_single(self, batch, **kwargs):
            res = super().train_step_single(batch, **kwargs)
            if full: self.history.record_batch('accuracy', (res['y_pred'].argmax(1)==batch[1]).float().mean().item())
            return res
    cbs = [('accuracy', PassthroughScoring('accuracy', lower_is_better=False, on_train=True)), ('bar', ProgressBar())] if full else []
    return lambda epochs: Net(model, Criterion, optimizer=optim.SGD, lr=0.01, train_split=None, iterator_train=lambda *a, **kw: Ready(batches),
                              callbacks=cbs, device='cpu', verbose=int(full), max_epochs=epochs).fit(batches[0][0], batches[0][1])

def installed(names):
    "Those that are there, with their versions."
    from importlib.metadata import PackageNotFoundError, version
    res = {}
    for name in names:
        try: res[name] = version(name)
        except PackageNotFoundError: pass
    return res

def quietly(fit, epochs):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(epochs)

def an_epoch(rounds, fits):
    "Microseconds a batch of each fit, without what comes before and after the epochs: by least times, then of every round."
    jobs = {f'{k} {e}': partial(quietly, fit, e) for k, fit in fits.items() for e in (short, long)}
    t = interleaved(rounds, **jobs)
    def batch(b, a): return (b-a)/(long-short)/n*1e6
    pairs = {k: (t[f'{k} {long}'], t[f'{k} {short}']) for k in fits}
    return {k: [batch(b.least, a.least), *map(batch, b.seconds, a.seconds)] for k, (b, a) in pairs.items()}

def told(us, digits=1): return spread(us[0], us[1:], digits)

def main(rounds):
    for name in ('lightning.pytorch', 'lightning.fabric'): logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    x, y = torch.rand(bs, 1), torch.randint(0, 2, (bs,))
    number, classes = (nn.Linear(1, 1), F.mse_loss, [(x, x)]*n), (nn.Linear(1, 2), F.cross_entropy, [(x, y)]*n)
    peers = {k: dict(fastai=fastai, lightning=lightning, skorch=skorch)[k] for k in installed(['fastai', 'lightning', 'skorch'])}
    makers = {'miniai': ours} | peers
    fits  = {'bare': bare(*number)} | {k: make(*number) for k, make in makers.items()}
    fulls = {'bare full': bare(*classes)} | {f'{k} full': make(*classes, full=True) for k, make in makers.items()}
    us = an_epoch(rounds, fits | fulls)
    over = {k: [a-b for a, b in zip(o, us['bare full' if k.endswith('full') else 'bare'])] for k, o in us.items()}
    rows = [f"| {k} {installed(peers).get(k, '')} | {told(over[k])} | {over[k][0]/over['miniai'][0]:.1f} | {told(over[f'{k} full'])} | "
            f"{over[f'{k} full'][0]/over['miniai full'][0]:.1f} |" for k in makers]
    torch.set_num_threads(2)
    big = simple_cnn(), F.cross_entropy, [(torch.rand(bs, 1, 28, 28), torch.randint(0, 10, (bs,)))]*n
    few = (rounds+1)//2
    cnn = an_epoch(few, {'bare': bare(*big), 'full': ours(*big, full=True)})
    report('overhead', 'The Learner: overhead a batch', '\n'.join([
        f"The bare loop takes {told(us['bare'])} µs a batch (one number, MSE) and {told(us['bare full'])} µs (two classes, cross-entropy), "
        f"one thread, n = {rounds}.", '',
        '| | µs above it, bare | times miniai | µs above it, full | times miniai |', '|---|---|---|---|---|', *rows, '',
        f"The CNN of the lesson *cnn*, batches of {bs}, two threads, n = {few}, full: {cnn['full'][0]/cnn['bare'][0]:.3f} × the bare loop, "
        f"{told([o/1000 for o in cnn['full']], 2)} ms a batch against {told([o/1000 for o in cnn['bare']], 2)}."]))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--rounds', type=int, default=13)
    main(ap.parse_args().rounds)
