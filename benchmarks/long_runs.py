"""How well Fashion-MNIST goes through a code of 2, 8, 32 and 128 numbers, the seeds as given: the recorded long runs.

Each run is one call of miniai-train with its default network. It learns from 55,000 images. The curves are errors on the 5,000 validation
images, measured after every epoch; the 10,000 test images are measured once, at the end, with the weights of the last epoch. Neither
chooses anything. About 10 to 40 seconds of one core an epoch. Finished runs lie in runs/long and are not repeated, so the script can be stopped
and started again, or started twice with different --latents. RESULTS.md, and long_runs.json which the lesson *conv_autoencoder* draws,
hold all finished runs; `--seeds` without a number only writes them."""
import argparse, csv, json, shutil, time
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch

from miniai.cli import main as train
from report import here, report, results

epochs = {128: 25, 32: 12, 8: 12, 2: 30}                          # numbers in the code → passes over the training images
seeds = 0, 1, 2
folder = here.parent/'runs'/'long'

def one(latent, seed):
    "Train once, in one thread, and keep the run; it appears under its name only when it is whole."
    path, tmp = folder/f'{latent}-{seed}', folder/f'tmp-{latent}-{seed}'
    if read(latent, seed): return
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(tmp, ignore_errors=True)
    start = time.process_time()
    args = dict(dataset='fashion_mnist', latent=latent, seed=seed, epochs=epochs[latent], bs=64, lr=3e-3, device='cpu', out=tmp)
    if train([f'--{k}={v}' for k, v in args.items()]): raise SystemExit(f'the run with {latent} numbers and seed {seed} failed')
    (tmp/'core_seconds').write_text(f'{time.process_time()-start:.0f}')
    tmp.rename(path)

def read(latent, seed):
    "Settings, test error and the validation error of each epoch of a finished run of the present length; None if there is none."
    path = folder/f'{latent}-{seed}'
    if not path.exists(): return None
    config = json.loads((path/'config.json').read_text())
    if config['epochs']!=epochs[latent]: return None
    rows = list(csv.DictReader((path/'history.csv').open()))
    return dict(config, curve=[float(r['valid_mse']) for r in rows],
                core_seconds=float((path/'core_seconds').read_text()))

def collect():
    "What the finished runs found, by numbers in the code."
    res = {}
    for k in sorted(epochs):
        runs = [r for r in map(partial(read, k), seeds) if r]
        if not runs: continue
        res[k] = dict(epochs=epochs[k], seeds=[r['seed'] for r in runs], pca_mse=runs[0]['pca_mse'], parameters=runs[0]['parameters'],
                      test_mse=[r['test_mse'] for r in runs], curves=[r['curve'] for r in runs],
                      core_seconds=[r['core_seconds'] for r in runs])
    return res

def spread(values):
    "Mean and, where there are two seeds or more, standard deviation (ddof=1)."
    return f'{mean(values):.5f}' + (f' ± {stdev(values):.5f}' if len(values)>1 else '')

def table(found):
    "The runs as a table, and the curves of the first seed."
    rows = [f"| {k} | {o['pca_mse']:.4f} | **{spread(o['test_mse'])}** | {', '.join(f'{e:.5f}' for e in o['test_mse'])} | "
            f"{len(o['seeds'])} of {len(seeds)} | {o['epochs']} | {spread([c[11] for c in o['curves']])} | {o['parameters']:,} | "
            f"{mean(o['core_seconds']):,.0f} |" for k, o in found.items()]
    curves = [f"{k} numbers, seed {o['seeds'][0]}: " + ' '.join(f'{v:.4f}' for v in o['curves'][0]) for k, o in found.items()]
    return '\n'.join([
        'Trained on 55,000 images. MSE on the 10,000 test images, pixels in [0,1], measured once, with the weights of the last epoch:',
        'mean ± standard deviation (ddof=1) of the finished seeds, and each of them. PCA has the same training and test images.', '',
        '| numbers | PCA, test | miniai, test | each seed | seeds | epochs | after epoch 12, valid | parameters | core seconds |',
        '|---|---|---|---|---|---|---|---|---|', *rows, '',
        'MSE on the 5,000 validation images after every epoch, one seed:', '', '```', *curves, '```'])

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--latents', type=int, nargs='*', default=sorted(epochs))
    ap.add_argument('--seeds', type=int, nargs='*', default=seeds)
    args = ap.parse_args()
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for latent in args.latents: one(latent, seed)
    found = collect()
    (results.parent/'long_runs.json').write_text(json.dumps(found))
    report('long_runs', 'Fashion-MNIST through a code of 2 to 128 numbers', table(found))
