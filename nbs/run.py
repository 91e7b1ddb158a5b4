"""Run lessons in a real Jupyter kernel and save their outputs: python nbs/run.py [--slow] [00_core.ipynb …]

Skips the cells that `nbdev-test` skips and keeps what they show; a cell that fails leaves its notebook as it was."""
import argparse, os, subprocess, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.config import get_config
from nbdev.test import nb_test_cells

nbs = Path(__file__).resolve().parent

def run(path, flags):
    "Execute the notebook at `path` and write it back, whole or not at all."
    nb = nbformat.read(path, as_version=4)
    runs = {c.id for c in nb_test_cells(path, get_config(nbs).tst_flags.split(), flags)}
    client = NotebookClient(nb, timeout=None, kernel_name='python3', resources={'metadata': {'path': str(nbs)}})
    with client.setup_kernel():
        for i, cell in enumerate(nb.cells):
            if cell.get('id') in runs: client.execute_cell(cell, i)
    for cell in nb.cells: join_streams(cell)
    tmp = path.with_suffix('.tmp')
    nbformat.write(nb, tmp)
    tmp.replace(path)

def join_streams(cell):
    "One output for each run of text on one stream: how it was cut depends on the clock."
    outs = []
    for o in cell.get('outputs', []):
        same = outs and o.output_type=='stream' and outs[-1].output_type=='stream' and outs[-1].name==o.name
        if same: outs[-1].text += o.text
        else: outs.append(o)
    if cell.cell_type=='code': cell.outputs = outs

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('notebooks', nargs='*', help='files in nbs/; all of them if none is named')
    ap.add_argument('--slow', action='store_true', help="run the cells marked '#| slow' too")
    args = ap.parse_args()
    paths = [nbs/Path(o).name for o in args.notebooks] or sorted(nbs.glob('[0-9]*.ipynb'))
    if data := os.environ.get('MINIAI_DATA'): os.environ['MINIAI_DATA'] = str(Path(data).resolve())  # the kernel runs in nbs/
    for p in paths:
        start = time.time()
        run(p, ['slow'] if args.slow else [])
        subprocess.run(['nbdev-clean', '--fname', str(p)], check=True, cwd=nbs.parent)
        print(f'{p.name}: {time.time()-start:.0f} s', flush=True)

if __name__=='__main__': sys.exit(main())
