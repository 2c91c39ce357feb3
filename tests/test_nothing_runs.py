"""That no line of the package could run what a file says: its syntax trees, walked whole."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("v1tlearn", "papers", "examples")
    for path in (ROOT / folder).rglob("*.py")
)

# Modules whose readers run what they read, or unpack where a file says.
BANNED_MODULES = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "dbm", "code", "codeop"),
    *("tarfile", "pty", "imp", "xmlrpc", "torch.hub", "torch.package"),
}
# Where pickles are looked at, and what of the module is used there: stand-ins take what they say.
LOOKED_AT = {
    "v1tlearn/interop/safe_files.py": {"UnpicklingError"},
    "v1tlearn/datasets/npz_files.py": {"Unpickler", "UnpicklingError"},
}
BANNED_CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *(
        "os.system",
        "os.popen",
        "os.startfile",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ),
    *("joblib.load", "pd.read_pickle", "pandas.read_pickle", "torch.jit.load", "torch.package"),
    *("shutil.unpack_archive", "runpy.run_path", "runpy.run_module", "exec_module"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"),
    *("np.load", "numpy.load", "np.lib.format.read_array"),
}
BANNED_METHODS = {"extractall", "extract", "load_module", "run_path", "unsafe_load", "full_load"}


def dotted(node):
    """`a.b.c` as text; empty for what is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def is_constant(call, name, value):
    found = [word.value for word in call.keywords if word.arg == name]
    return len(found) == 1 and isinstance(found[0], ast.Constant) and found[0].value is value


def wrong_in_call(call):
    """What is wrong with a call, None if nothing is."""
    name = dotted(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = {word.arg for word in call.keywords}
    if name.endswith("np.load") and is_constant(call, "allow_pickle", False):
        return None
    if name in BANNED_CALLS or name.startswith(("pickle.load", "os.exec", "os.spawn")):
        return name
    if method in BANNED_METHODS:
        return f".{method}"
    if method == "eval" and (call.args or call.keywords):  # of a module of torch there are none
        return ".eval with arguments"
    if name == "torch.load" and not is_constant(call, "weights_only", True):
        return "torch.load without weights_only=True"
    if name == "yaml.load" and [dotted(a) for a in call.args[1:]] != ["_PlainLoader"]:
        return "yaml.load with another loader"
    if method in ("from_pretrained", "from_config"):
        if not is_constant(call, "trust_remote_code", False):
            return f"{method} without trust_remote_code=False"
        if "AutoModel.from_pretrained" in name and not is_constant(call, "use_safetensors", True):
            return "weights that may be pickles"
    if name.startswith("subprocess."):
        if "shell" in given or None in given:
            return "a shell, perhaps"
        if not (call.args and isinstance(call.args[0], ast.List)):
            return "a command that is no list"
    is_import = method == "import_module" or name == "import_module"
    if is_import and not (call.args and isinstance(call.args[0], ast.Constant)):
        return "an import of a name from elsewhere"
    if "verify" in given and not is_constant(call, "verify", True):
        return "a connection that may be unverified"
    return None


def wrong_in(source, path="v1tlearn/any.py"):
    """Lines of a file that could run what they read, and why."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        why = None
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names} & BANNED_MODULES
            why = f"import {names}" if names and path not in LOOKED_AT else None
        elif isinstance(node, ast.ImportFrom):
            names = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            why = f"import {node.module}" if names & BANNED_MODULES else None
        elif isinstance(node, ast.Attribute) and dotted(node.value) == "pickle":
            why = None if node.attr in LOOKED_AT.get(path, ()) else f"pickle.{node.attr}"
        elif isinstance(node, ast.Call):
            why = wrong_in_call(node)
        if why:
            wrong.append(f"{path}:{node.lineno}: {why}")
    return wrong


def test_no_line_runs_what_it_reads():
    assert len(FILES) > 300
    wrong = [line for path in FILES for line in wrong_in((ROOT / path).read_text("utf-8"), path)]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(text)",
        "frame.eval('a + b')",
        "import pickle",
        "from pickle import loads",
        "import os, dill",
        "pickle.loads(data)",
        "joblib.load(path)",
        "pd.read_pickle(path)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run(['ls'], shell=True)",
        "subprocess.run(['ls'], **options)",
        "subprocess.check_output(command)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "zip.extractall(folder)",
        "shutil.unpack_archive(path)",
        "import tarfile",
        "importlib.import_module(name)",
        "transformers.AutoModel.from_pretrained(name)",
        "transformers.AutoModel.from_pretrained(name, trust_remote_code=False)",
        "transformers.AutoModel.from_pretrained(n, trust_remote_code=t, use_safetensors=True)",
        "requests.get(url, verify=False)",
    ],
)
def test_the_walk_finds(line):
    assert len(wrong_in(line)) >= 1


@pytest.mark.parametrize(
    "line",
    [
        "module.eval()",
        "re.compile(text)",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "subprocess.run(['ls'], check=True)",
        "import_module('deflate')",
    ],
)
def test_the_walk_passes(line):
    assert wrong_in(line) == []


def test_pickles_are_looked_at_in_two_files_alone():
    importing = {path for path in FILES if "import pickle\n" in (ROOT / path).read_text("utf-8")}
    assert importing == set(LOOKED_AT)
