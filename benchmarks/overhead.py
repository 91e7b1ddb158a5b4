"""What the Learner costs a batch: a model of one number, 235 ready batches of 256, against a bare loop.

Overhead is the least time of the Learner less the least time of the same work in a bare loop, over 15 interleaved rounds."""
import io
from contextlib import redirect_stdout

import torch
import torch.nn.functional as F
from torch import nn, optim

from miniai.learner import DeviceCB, Learner, MetricsCB, ProgressCB, TrainCB
from miniai.metrics import Accuracy
from report import interleaved, report

torch.set_num_threads(1)
n = 235
x, y = torch.rand(256, 1), torch.randint(0, 2, (256,))
jobs = {'regression': (nn.Linear(1, 1), F.mse_loss, [(x, x)]*n), 'classes': (nn.Linear(1, 2), F.cross_entropy, [(x, y)]*n)}

def bare(model, loss_func, batches):
    opt = optim.SGD(model.parameters(), 0.01)
    for xb, yb in batches:
        loss_func(model(xb), yb).backward()
        opt.step()
        opt.zero_grad()

def fit(model, loss_func, batches, cbs=()):
    learn = Learner(model, (batches, None), loss_func, 0.01, [TrainCB(), *cbs])
    def run():
        with redirect_stdout(io.StringIO()): learn.fit(1)
    return run

t = interleaved(15, bare=lambda: bare(*jobs['regression']), learner=fit(*jobs['regression']), bare2=lambda: bare(*jobs['classes']),
                full=fit(*jobs['classes'], [DeviceCB('cpu'), MetricsCB(accuracy=Accuracy()), ProgressCB(plot=True)]))
us = {k: v/n*1e6 for k, v in t.items()}
report('overhead', 'The Learner: overhead a batch', f'''| | µs a batch | above the bare loop |
|---|---|---|
| bare loop, regression | {us["bare"]:.0f} | |
| `Learner` with `TrainCB` | {us["learner"]:.0f} | {us["learner"]-us["bare"]:.1f} |
| bare loop, two classes | {us["bare2"]:.0f} | |
| `Learner` with device, loss, accuracy, progress | {us["full"]:.0f} | {us["full"]-us["bare2"]:.1f} |''')
