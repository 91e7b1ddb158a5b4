"""One epoch of batches from Fashion-MNIST (or the digits): images in memory against torch's DataLoader and rows made one by one.

All give the same float batches of 256. Ratios are times against `TensorDL`, between least times; the first two are interleaved."""
import argparse

import torch
import torchvision.transforms.functional as TF
from torch.utils.data import DataLoader, TensorDataset

from miniai.datasets import DataLoaders, TensorDL, inplace, load, load_tensors
from report import interleaved, report

@inplace
def to_tensors(rows): rows['image'] = [TF.to_tensor(o) for o in rows['image']]

def drain(dl):
    for _ in dl: pass

def main(rounds):
    torch.set_num_threads(2)
    x, y = load_tensors('fashion_mnist', standin='digits').train
    dd = load('fashion_mnist', standin='digits')
    fast = TensorDL(x, y, 256, shuffle=True, device='cpu')
    listed = DataLoader(TensorDataset(x.float()/255, y), 256, shuffle=True)
    rows = DataLoaders.from_dd(dd.with_transform(to_tensors), 256).train
    assert [len(xb) for xb, _ in fast] == [len(xb) for xb, _ in listed]
    t = interleaved(rounds, fast=lambda: drain(fast), listed=lambda: drain(listed))
    t |= interleaved(min(rounds, 3), rows=lambda: drain(rows))
    report('loading', f'Loading: an epoch of {len(x):,} images in batches of 256', f'''| | ratio | ms: least (mean ± std) | n |
|---|---|---|---|
| `TensorDL`, uint8 in memory | 1 | {t["fast"].told(digits=0)} | {t["fast"].n} |
| `DataLoader(TensorDataset)`, float32 in memory | {t["listed"]/t["fast"]:.1f} | {t["listed"].told(digits=0)} | {t["listed"].n} |
| `DataLoaders.from_dd`, each row made anew in Python | {t["rows"]/t["fast"]:.0f} | {t["rows"].told(digits=0)} | {t["rows"].n} |''')

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--rounds', type=int, default=9)
    main(ap.parse_args().rounds)
