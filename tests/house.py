"""What the rules of the house look at, and what they count. The rules are in test_house.py.

`python tests/house.py` prints what is counted in each module."""
import ast, io, json, re, tokenize
from dataclasses import dataclass, field
from pathlib import Path

root = Path(__file__).parents[1]
decades = {'00': 'Ground', '10': 'Convolutions', '20': 'The loop', '30': 'Deep networks', '40': 'Autoencoders',
           '50': 'What they are for', '60': 'Your own', '90': 'Extras'}
limits = dict(lines=300, columns=120, function=25, cell=45)      # for each module
most_triples = 5                                                 # fewer than so many in 1,000 lines of all modules

# --- reading

default_exp = re.compile(r'^#\|\s*default_exp\s+(\w+)', re.M)
by_hand = ('*.md', '*.ini', '*.toml', 'Makefile', '.ci/run', 'miniai/__init__.py', 'nbs/*.py', 'tests/*.py',
           'benchmarks/*.py', 'benchmarks/*.md')

def source(cell): return ''.join(cell['source'])
def code(cells): return '\n'.join(source(c) for c in cells if c['cell_type']=='code')
def is_folded(cell): return bool(cell['metadata'].get('jupyter', {}).get('source_hidden'))

@dataclass
class House:
    "Everything that a rule may look at; an example that breaks a rule is a house with hardly anything in it."
    lessons:dict = field(default_factory=dict)    # '14_receptive_field' → its cells
    modules:dict = field(default_factory=dict)    # '14_receptive', number of the lesson and name of the module → source
    texts:dict = field(default_factory=dict)      # path → text of all else that is written by hand
    files:frozenset = frozenset()                 # paths that are there
    sizes:dict = field(default_factory=dict)      # '14_receptive_field' → bytes of the notebook

    @classmethod
    def read(cls, root):
        "The house in the folder `root`. Lessons and modules are in the order of their numbers."
        notebooks = sorted((root/'nbs').glob('*.ipynb'))
        lessons = {o.stem: json.loads(o.read_text(encoding='utf-8'))['cells'] for o in notebooks}
        names = {k: m[1] for k, cells in lessons.items() if (m := default_exp.search(code(cells)))}
        modules = {f'{k[:2]}_{o}': (root/'miniai'/f'{o}.py').read_text(encoding='utf-8') for k, o in names.items()}
        def path(o): return o.relative_to(root).as_posix()
        texts = {path(o): o.read_text(encoding='utf-8') for g in by_hand for o in sorted(root.glob(g))}
        del texts['tests/test_house.py']                                    # it is full of bad examples
        files = frozenset(path(o) for d in ('.', 'nbs', 'miniai', 'benchmarks') for o in (root/d).iterdir())
        return cls(lessons, modules, texts, files, {o.stem: o.stat().st_size for o in notebooks})

# --- parsing

def nodes(text, *kinds): return [o for o in ast.walk(ast.parse(text)) if isinstance(o, kinds)]

def imports(text):
    """Each import from this package, wherever it stands, as (module, name, alias).

    `from .core import x` and `from miniai.core import x` give ('core', 'x', None); `from . import core` and
    `import miniai.core` have no name, but an alias by which the module is called afterwards."""
    for node in nodes(text, ast.ImportFrom):
        whole, _, rest = (node.module or '').partition('.')
        if node.level: inside = '.'*(node.level-1) + (node.module or '')
        elif whole=='miniai': inside = rest
        else: continue
        for a in node.names: yield (inside, a.name, None) if inside else (a.name, None, a.asname or a.name)
    for node in nodes(text, ast.Import):
        for a in node.names:
            whole, _, inside = a.name.partition('.')
            if whole=='miniai': yield inside, None, a.asname or a.name
    for node in nodes(text, ast.Call):
        if re.search(r'\b(import_module|__import__)$', ast.unparse(node.func)): yield ast.unparse(node), None, ''

def defined(text):
    "Names that a text defines at its top level; `_all_` hands names on and defines none of them."
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign): targets = [node.target]
        yield from (o.id for t in targets for o in ast.walk(t) if isinstance(o, ast.Name))

def docstring(node):
    "The statement that is the docstring of a module, class or function, or None."
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or ast.get_docstring(node) is None: return None
    return node.body[0]

def comments(text):
    "The lines that have a comment."
    return {t.start[0] for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type==tokenize.COMMENT}

def methods(cls): return [o for o in cls.body if isinstance(o, ast.FunctionDef)]

def inherited(cls, classes):
    "Names of the methods that a class has from its bases, as far as these are in `classes`, by name."
    bases = [classes[name] for o in cls.bases if (name := ast.unparse(o)) in classes]
    return {name for b in bases for name in {o.name for o in methods(b)} | inherited(b, classes)}

same = re.compile(r'(before|after|cleanup)_\w+|predict|get_loss|backward|step|zero_grad|forward|extra_repr')

def decorated(f, word): return any(re.search(rf'\b{word}\b', ast.unparse(o)) for o in f.decorator_list)

def hidden(f):
    "Is a function or class for the module only? A method that is patched in is, if its class is."
    if f.name.startswith('_') or not decorated(f, 'patch'): return f.name.startswith('_')
    cls = f.args.args[0].annotation
    return same.fullmatch(f.name) is not None or cls is not None and ast.unparse(cls).startswith('_')

def public(text, classes):
    """Public functions, classes and methods as (name, node).

    Without methods that mean the `same` everywhere, that a base of ours explains, or that set what a property tells."""
    for o in ast.parse(text).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or hidden(o): continue
        yield o.name, o
        if isinstance(o, ast.FunctionDef): continue
        told = inherited(o, classes) - {'__init__'}
        for f in methods(o):
            known = f.name in told or same.fullmatch(f.name) or decorated(f, 'setter')
            if f.name=='__init__' or not (hidden(f) or known): yield f'{o.name}.{f.name}', f

def returns(f):
    "Does a function return something, itself and not by a function inside it?"
    todo = list(f.body)
    while todo:
        o = todo.pop()
        if isinstance(o, ast.Return) and o.value and ast.unparse(o.value)!='None': return True
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef, ast.Lambda)): todo += ast.iter_child_nodes(o)
    return False

def untold(f, commented):
    "What of a function has neither a type nor a comment of its own, as docments reads them: parameters and result."
    a = f.args
    args = [o for o in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if o]
    lines = [o.lineno for o in args]
    for o in args:
        alone = o.lineno in commented and lines.count(o.lineno)==1
        if not (o.annotation or alone or o.arg in ('self', 'cls', 'learn')): yield f'the parameter {o.arg}'
    signature = range(f.lineno, f.body[0].lineno)
    if returns(f) and not f.returns and not commented & {*signature} - {*lines}: yield 'what it returns'

def parts(text):
    "Each top-level function and method, as (name, source); what stands outside of them has no name."
    for o in ast.parse(text).body:
        fs = methods(o) if isinstance(o, ast.ClassDef) else [o] if isinstance(o, ast.FunctionDef) else []
        yield from ((f.name, ast.unparse(f)) for f in fs)
        if not fs: yield '', ast.unparse(o)

# --- counting

silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

def tokens(text):
    "Tokens of the code: no comments, docstrings or white space."
    docs = {d.lineno for o in nodes(text, ast.AST) if (d := docstring(o))}
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if t.type not in silent and not (t.type==tokenize.STRING and t.start[0] in docs): yield t

def n_targets(o): return sum(map(n_targets, o.elts)) if isinstance(o, (ast.Tuple, ast.List)) else 1

def triples(text):
    "Assignments of three or more things at once; `for a, b, c in` is none, and `a, (b, c) = …` is one."
    return [o for o in nodes(text, ast.Assign) if max(map(n_targets, o.targets))>=3]

def body(f):
    "Lines of a function from its first statement to its end: no signature, no docstring."
    rest = f.body[1:] if docstring(f) else f.body
    return f.end_lineno - rest[0].lineno + 1 if rest else 0

def exported(text):
    "Lines of each exported cell by the id in its mark; what nbdev writes above the first is no cell."
    pieces = re.split(r'^# %% \.\..*#(\w+)\n', text, flags=re.M)[1:]
    return {mark: len(cell.strip('\n').splitlines()) for mark, cell in zip(pieces[::2], pieces[1::2])}

def tour(text):
    "The docstring of a module: a summary, what it holds, an example."
    return ast.get_docstring(ast.parse(text), clean=False) or ''

def written(text):
    "Lines that somebody wrote: no summary of the module, no `__all__`."
    return re.sub(r'^__all__ = \[[^]]*\]', '', text, flags=re.M).splitlines()[1:]

@dataclass
class Counts:
    "What is counted in the source of a module."
    lines:int           # of the whole file, with its tour
    columns:int         # of the widest line
    density:float       # tokens in a line of code
    triples:int         # assignments of three or more things
    function:int        # lines in the body of the longest function
    longest:str         # its name
    cell:int            # lines of the longest exported cell
    mark:str            # its id

def count(text):
    seen = list(tokens(text))
    functions = {o.name: body(o) for o in nodes(text, ast.FunctionDef)} or {'': 0}
    cells = exported(text) or {'': 0}
    longest, mark = max(functions, key=functions.get), max(cells, key=cells.get)
    return Counts(lines=len(text.splitlines()), columns=max(map(len, written(text)), default=0),
                  density=len(seen)/max(1, len({t.start[0] for t in seen})), triples=len(triples(text)),
                  function=functions[longest], longest=longest, cell=cells[mark], mark=mark)

def table(modules):
    "The counts of all modules, a row for each."
    rows = ['                 lines  columns  tokens a line  triples  cell  function']
    every = {k: count(text) for k, text in modules.items()}
    for k, o in every.items():
        over = ''.join(f', {what} over {most}' for what, most in limits.items() if getattr(o, what)>most)
        rows.append(f'{k:16}{o.lines:6}{o.columns:9}{o.density:15.1f}{o.triples:9}{o.cell:6}{o.function:10}'
                    f' {o.longest}{over}')
    lines, n = sum(o.lines for o in every.values()), sum(o.triples for o in every.values())
    return '\n'.join([*rows, f'{"all":16}{lines:6}{"":24}{n:9}   {1000*n/max(1, lines):.1f} in 1,000 lines'])

if __name__=='__main__': print(table(House.read(root).modules))
