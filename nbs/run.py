"""Run lessons in a real Jupyter kernel and save their outputs: python nbs/run.py [--slow] [00_core.ipynb …]

Skips the cells that `nbdev-test` skips and keeps what they show; a cell that fails leaves its notebook as it was, and
so does an exercise whose check is content with the empty stub."""
import argparse, ast, os, re, subprocess, sys, time
from functools import partial
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
    n = len(nb.cells)
    exercises = trials([c for c in nb.cells if c.id in runs])
    for trial in reversed(list(exercises)):                              # the last first: it may build on those before
        nb.cells.append(nbformat.v4.new_code_cell(trial))
    with client.setup_kernel():
        for i, cell in enumerate(nb.cells):
            if i>=n or cell.id in runs: client.execute_cell(cell, i)
    del nb.cells[n:]
    for cell in nb.cells: join_streams(cell)
    tmp = path.with_suffix('.tmp')
    nbformat.write(nb, tmp)
    tmp.replace(path)

def trials(cells):
    "For each exercise, code that fails if its check accepts the stub: the stub again, and a call of the check on it."
    stub, names = '', set()
    for cell in cells:
        tree = ast.parse(cell.source) if cell.cell_type=='code' else None
        if re.match(r'# \d+\. your turn', cell.source):
            stub = cell.source
            defined = [o for node in tree.body for o in (node, *getattr(node, 'targets', ()))]
            names = {getattr(o, 'name', getattr(o, 'id', None)) for o in defined}
        elif stub and tree:
            for call in filter(partial(is_check, names), ast.walk(tree)):
                told = f"{ast.unparse(call)} accepts the stub: {stub.splitlines()[0]}"
                yield f'{stub}\ntry: {ast.unparse(call)}\nexcept Exception: pass\nelse: raise AssertionError({told!r})'

def is_check(names, node):
    "Is `node` the call of a check on one of `names`?"
    if not isinstance(node, ast.Call) or not getattr(node.func, 'id', '').startswith('check_'): return False
    return bool(names & {o.id for a in node.args for o in ast.walk(a) if isinstance(o, ast.Name)})

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
    if data := os.environ.get('MINIAI_DATA'): os.environ['MINIAI_DATA'] = str(Path(data).resolve())      # kernels run in nbs/
    for p in paths:
        start = time.time()
        run(p, ['slow'] if args.slow else [])
        subprocess.run(['nbdev-clean', '--fname', str(p)], check=True, cwd=nbs.parent)
        print(f'{p.name}: {time.time()-start:.0f} s', flush=True)

if __name__=='__main__': sys.exit(main())
