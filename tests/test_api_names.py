"""Every TensorRT name that the package touches exists in TensorRT 8.6, 10.3, 10.16, 11.4 and TensorRT-RTX 1.7.

One machine has one TensorRT, so this reads the source instead of running it. `data/tensorrt_api.json` has the classes,
enums and members of the five versions, as read from their bindings: {class: {"01111": "names that all but the first
version have"}}, where "trt" holds the names of the module itself and a layer's members lack those of ILayer.

What counts as a use of a name:
- `trt.X` and `trt.X.Y`, where `trt` is a variable of this name or any attribute `….trt`, also through local variables
  (`flags = api.trt.BuilderFlag; flags.FP16`);
- `object.member`, set or read, where the object is known to come from TensorRT: what `trt.X(…)` constructs, what a
  method in RETURNS gives back, a layer of `network.add_*`, the attributes `….network` and `….builder`, `….raw` (a
  layer) in `zoo/onnx`, an attribute that its class sets to such an object; and a variable named as in CONVENTION that
  is a parameter without a type of ours, or the result of a function of the same file that returns Any;
- the keywords of `configured(layer, …)`, which are attributes of the layer.
`getattr` with a name that is no literal would hide a use and is refused, but for what BUILT lists with its reason.

A use must hold in every version that can reach it. What is followed for that: `if`, `… if … else …`, `and`, `or`, and
an `if` before it in the same block that ends in return, raise, continue or break, when the test says `….strong` (all
but 8.6), `….rtx`, `….major` compared with a number, or `hasattr(object, "name")`; any other test is taken to go both
ways. A handler of `zoo/onnx` runs only where the layer types in its `@handles(…)` exist. The names in
`hasattr(x, "name")` and `getattr(x, "name", default)` are guarded by themselves. No guard excuses a name that no
version has.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "zoo"
API = json.loads((TESTS / "data" / "tensorrt_api.json").read_text("utf-8"))
VERSIONS = API["versions"]
MAJORS = {"8.6.0": 8, "10.3.0": 10, "10.16.1": 10, "11.4.0": 11, "rtx-1.7.1": 1}

CONVENTION = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
}
RETURNS = {
    "add_input": "ITensor",
    "create_builder_config": "IBuilderConfig",
    "create_engine_inspector": "EngineInspector",
    "create_execution_context": "IExecutionContext",
    "create_execution_context_without_device_memory": "IExecutionContext",
    "create_network": "INetworkDefinition",
    "create_optimization_profile": "IOptimizationProfile",
    "create_runtime_config": "IRuntimeConfig",
    "create_timing_cache": "ITimingCache",
    "deserialize_cuda_engine": "ICudaEngine",
    "get_layer": "ILayer",
    "get_plugin_registry": "IPluginRegistry",
    "get_timing_cache": "ITimingCache",
}
BUILT = {  # (file, the name as it is written there): what it can be
    ("onnx/layers_neural.py", "source"): "alpha or beta of an activation, which all versions have",
    ("onnx/layers_shape.py", "attribute"): "start, shape or stride of a slice, which all versions have",
    ("onnx/reading.py", "_CLASSES.get(self.kind, default)"): "see the test of the walker's classes below",
    ("onnx/reading.py", "attribute"): "the weights of a layer, of which the handlers name those that it has",
    ("verify/proof.py", "name"): "what the walker asks of a network, which is read where it asks",
    ("runtime/loaded.py", "name"): "device_memory_size_v2 or device_memory_size, whichever the engine has",
}
COMPARE = {ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq}


# What the versions have


@cache
def members(scope: str) -> dict[str, set[str]]:
    """Name -> the versions that have it, for a class or enum, or "trt" for the module. "ILayer" means any layer."""
    found: dict[str, set[str]] = {}
    layer = scope.startswith("I") and scope.endswith("Layer")
    scopes = [s for s in API["names"] if s.endswith("Layer")] if scope == "ILayer" else [scope, *["ILayer"] * layer]
    for table in (API["names"].get(s, {}) for s in scopes):
        for mask, names in table.items():
            for name in names.split():
                found.setdefault(name, set()).update(v for v, bit in zip(VERSIONS, mask) if bit == "1")
    return found


def layer_class(method: str) -> str:
    """add_pooling_nd -> IPoolingLayer; "ILayer" where the names do not correspond."""
    wanted = method.removeprefix("add_").removesuffix("_nd").removesuffix("_v2").replace("_", "")
    classes = {name.lower(): name for name in API["names"] if name.endswith("Layer")}
    return classes.get(f"i{wanted}layer", "ILayer")


# Reading the source


@dataclass(frozen=True)
class Use:
    """One name in the source, and the versions in which it is reached."""

    scope: str  # "trt" or a class
    name: str
    line: int
    reached: frozenset[str]
    guarded: bool = False  # named by hasattr or getattr: may lack anywhere, but not everywhere

    def problem(self) -> str | None:
        versions = members(self.scope).get(self.name, set())
        missing = sorted(self.reached - versions, key=VERSIONS.index)
        if not versions:
            return f"{self.scope}.{self.name} is in no version"
        return f"{self.scope}.{self.name} is not in {', '.join(missing)}" if missing and not self.guarded else None


class Reader(ast.NodeVisitor):
    """Collects the uses in a file. `reached` are the versions that get to the node being visited."""

    def __init__(self, tree: ast.Module, path: str = "") -> None:
        self.path = path
        self.uses: list[Use] = []
        self.problems: list[str] = []
        self.reached = frozenset(VERSIONS)
        # Innermost last: variable -> its class, None if it is not TensorRT's; the same for what classes keep in self.
        self.names: list[dict[str, str | None]] = [{}]
        self.attributes: list[dict[str, str | None]] = []
        self.any_aliases = {"Any", *_aliases_of_any(tree)}
        self.functions = {f.name: f.returns for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
        self.visit(tree)

    # The class of an expression: "trt" is the module, "trt.X" the class or enum X itself, "X" an object of class X

    def kind(self, node: ast.expr | None) -> str | None:
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        if isinstance(node, ast.Attribute):
            return self.attribute_kind(node)
        if isinstance(node, ast.Call):
            return self.call_kind(node)
        if isinstance(node, ast.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ast.BoolOp):
            return next(filter(None, map(self.kind, node.values)), None)
        return None

    def lookup(self, name: str) -> str | None:
        for scope in reversed(self.names):
            if name in scope:
                return scope[name]
        return "trt" if name == "trt" else CONVENTION.get(name)

    def attribute_kind(self, node: ast.Attribute) -> str | None:
        base, name = self.kind(node.value), node.attr
        if base == "trt":
            return f"trt.{name}"
        if base is not None:
            return {"attention": "IAttention"}.get(name)
        if _name(node.value) == "self" and self.attributes and name in self.attributes[-1]:
            return self.attributes[-1][name]
        if name == "trt" and _name(node.value) != "zoo":
            return "trt"
        if name == "raw" and self.path.startswith("onnx/"):
            return "ILayer"
        return CONVENTION[name] if name in ("network", "builder") else None

    def call_kind(self, node: ast.Call) -> str | None:
        function = node.func
        if isinstance(function, ast.Name) and function.id == "configured" and node.args:
            return self.kind(node.args[0])
        if isinstance(function, ast.Name) and function.id == "getattr" and len(node.args) > 1:
            base, name = self.kind(node.args[0]), node.args[1]
            method = name.value if isinstance(name, ast.Constant) else ""
            return f"{base}.{method}" if base == "INetworkDefinition" else None
        found = self.kind(function)
        if found and found.startswith("trt."):
            called = found.removeprefix("trt.")
            return RETURNS.get(called, called)
        method = (found or "").rpartition(".")[2] or (function.attr if isinstance(function, ast.Attribute) else "")
        base = self.kind(function.value) if isinstance(function, ast.Attribute) else found and found.split(".")[0]
        if base == "INetworkDefinition" and method.startswith("add_") and method != "add_input":
            return layer_class(method)
        if base and method in ("get_input", "get_output"):
            return "ITensor"
        return RETURNS.get(method) if base else None

    # Names: what is assigned to them, and what parameters are called

    def bind(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for left, right in zip(target.elts, value.elts):
                self.bind(left, right)
        elif isinstance(target, ast.Tuple):
            for left in target.elts:
                self.bind(left, None)
        elif isinstance(target, ast.Name):
            found = self.kind(value)
            if found is None and self.returns_any(value):
                found = CONVENTION.get(target.id)
            self.names[-1][target.id] = found

    def returns_any(self, value: ast.expr | None) -> bool:
        """True for a call of a function of this file that says it returns Any."""
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else None
        return called in self.functions and self.is_any(self.functions[called])

    def is_any(self, annotation: ast.expr | None) -> bool:
        return annotation is None or (isinstance(annotation, ast.Name) and annotation.id in self.any_aliases)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.names[-1].update({(alias.asname or alias.name).partition(".")[0]: None for alias in node.names})

    visit_ImportFrom = visit_Import

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars:
                self.bind(item.optional_vars, None)
        self.block(node.body)

    def visit_comprehension_of(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.names.append({})
        for generator in node.generators:
            self.visit(generator.iter)
            self.bind(generator.target, None)
            for test in generator.ifs:
                self.visit(test)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.names.pop()

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_comprehension_of

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self.bind(target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.bind(node.target, None)
        self.block(node.body)
        self.block(node.orelse)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """What its methods assign to self is known in all of them."""
        self.attributes.append({})
        for method in (f for f in node.body if isinstance(f, ast.FunctionDef)):
            self.names.append(self.parameters(method))
            for assign in (a for a in ast.walk(method) if isinstance(a, ast.Assign)):
                for target, value in _pairs(assign):
                    if isinstance(target, ast.Attribute) and _name(target.value) == "self":
                        known = self.attributes[-1].get(target.attr)
                        self.attributes[-1][target.attr] = known or self.kind(value)
            self.names.pop()
        self.generic_visit(node)
        self.attributes.pop()

    def parameters(self, node: ast.FunctionDef | ast.Lambda) -> dict[str, str | None]:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return {a.arg: CONVENTION.get(a.arg) if self.is_any(a.annotation) else None for a in given if a.arg != "trt"}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not self.attributes:  # a method is no variable
            self.names[-1][node.name] = None
        outer = self.reached
        for kinds in (d.args for d in node.decorator_list if isinstance(d, ast.Call) and _name(d.func) == "handles"):
            self.reached &= set().union(*(members("LayerType").get(kind.value, set()) for kind in kinds))
        self.names.append(self.parameters(node))
        self.block(node.body)
        self.names.pop()
        self.reached = outer

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.names.append(self.parameters(node))
        self.visit(node.body)
        self.names.pop()

    # Guards: which versions go on

    def holds(self, test: ast.expr, version: str) -> bool | None:
        """What a test comes to in a version; None when it depends on something else."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.holds(test.operand, version)
            return None if inner is None else not inner
        if isinstance(test, ast.BoolOp):
            decisive = isinstance(test.op, ast.Or)
            values = [self.holds(value, version) for value in test.values]
            return decisive if decisive in values else None if None in values else not decisive
        if isinstance(test, ast.Attribute) and test.attr in ("strong", "rtx"):
            return version == "rtx-1.7.1" if test.attr == "rtx" else version != "8.6.0"
        if isinstance(test, ast.Compare) and isinstance(test.left, ast.Attribute) and test.left.attr == "major":
            compare, number = COMPARE.get(type(test.ops[0])), test.comparators[0]
            return compare(MAJORS[version], number.value) if compare and isinstance(number, ast.Constant) else None
        if isinstance(test, ast.Call) and _name(test.func) == "hasattr" and isinstance(test.args[1], ast.Constant):
            scope = self.kind(test.args[0])
            return scope and version in members(_class(scope)).get(test.args[1].value, set())
        return None

    def when(self, test: ast.expr, wanted: bool) -> frozenset[str]:
        """The versions for which `test` may come to `wanted`."""
        return frozenset(v for v in self.reached if self.holds(test, v) in (wanted, None))

    def inside(self, reached: frozenset[str], nodes: Iterable[ast.AST]) -> None:
        outer, self.reached = self.reached, reached
        self.block(nodes)
        self.reached = outer

    def block(self, nodes: Iterable[ast.AST]) -> None:
        """Statements in order: an `if` that leaves takes its versions out of the rest."""
        outer = self.reached
        for node in nodes:
            self.visit(node)
            if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], _LEAVES):
                self.reached = self.when(node.test, False)
        self.reached = outer

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.visit(node.test)
        body, orelse = (part if isinstance(part, list) else [part] for part in (node.body, node.orelse))
        self.inside(self.when(node.test, True), body)
        self.inside(self.when(node.test, False), orelse)

    visit_IfExp = visit_If

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        outer = self.reached
        for value in node.values:
            self.visit(value)
            self.reached = self.when(value, isinstance(node.op, ast.And))
        self.reached = outer

    # Uses

    def use(self, scope: str | None, name: str, line: int, guarded: bool = False) -> None:
        if scope and not name.startswith("__") and not (scope.startswith("trt.") and scope[4:] not in API["names"]):
            self.uses.append(Use(_class(scope), name, line, self.reached, guarded))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        self.use(self.kind(node.value), node.attr, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = _name(node.func)
        if called == "configured":
            for keyword in (k for k in node.keywords if k.arg):
                self.use(self.kind(node.args[0]), keyword.arg, node.lineno)
        if called in ("hasattr", "getattr") and (scope := self.kind(node.args[0])):
            if isinstance(node.args[1], ast.Constant):
                guarded = called == "hasattr" or len(node.args) == 3
                self.use(scope, node.args[1].value, node.lineno, guarded)
            elif (self.path, ast.unparse(node.args[1])) not in BUILT:
                self.problems.append(f"{self.path}:{node.lineno}: {called} of {scope} with a name that is no literal")

    def report(self) -> list[str]:
        """One line for every name that is missing in a version that reaches it."""
        found = ((use.line, use.problem()) for use in self.uses)
        return [*self.problems, *(f"{self.path}:{line}: {problem}" for line, problem in found if problem)]


_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def _class(scope: str) -> str:
    return scope.removeprefix("trt.")


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _pairs(assign: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """(target, value), one by one where tuples are assigned."""
    for target in assign.targets:
        if isinstance(target, ast.Tuple) and isinstance(assign.value, ast.Tuple):
            yield from zip(target.elts, assign.value.elts)
        else:
            yield target, assign.value


def _aliases_of_any(tree: ast.Module) -> set[str]:
    """`Layer = Any` at the top of a file."""
    assigns = (node for node in tree.body if isinstance(node, ast.Assign) and _name(node.value) == "Any")
    return {target.id for node in assigns for target in node.targets if isinstance(target, ast.Name)}


def read(source: str, path: str = "example.py") -> Reader:
    return Reader(ast.parse(source), path)


# The package


def package_files() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", package_files())
def test_every_name_exists_wherever_it_is_reached(path: str) -> None:
    assert read((PACKAGE / path).read_text("utf-8"), path).report() == []


def test_the_names_are_found() -> None:
    """Reads enough to be worth trusting: a change that blinds the reader fails here."""
    files = [read((PACKAGE / path).read_text("utf-8"), path) for path in package_files()]
    uses = {f"{use.scope}.{use.name}" for file in files for use in file.uses}
    assert {
        "trt.ActivationType", "trt.bfloat16", "ActivationType.GELU_ERF", "ActivationType.RELU", "BuilderFlag.FP16",
        "Builder.build_serialized_network", "IBuilderConfig.set_flag", "IBuilderConfig.builder_optimization_level",
        "ICudaEngine.get_tensor_name", "IExecutionContext.execute_async_v3", "ILayer.precision", "ILayer.type",
        "INetworkDefinition.add_normalization_v2", "INetworkDefinition.add_slice", "INormalizationLayer.epsilon",
        "IOptimizationProfile.set_shape", "IResizeLayer.nearest_rounding", "ISliceLayer.axes", "ITimingCache.serialize",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "Runtime.deserialize_cuda_engine",
    } <= uses  # fmt: skip
    assert len(uses) > 120


def test_the_walker_knows_the_classes_of_the_layers_that_it_handles() -> None:
    from zoo.onnx import walker  # noqa: F401  (fills the table)
    from zoo.onnx.handlers import HANDLERS
    from zoo.onnx.reading import _CLASSES

    for kind in HANDLERS:
        name = _CLASSES.get(kind, f"I{kind.title().replace('_', '')}Layer")
        assert members("trt").get(name, set()) >= members("LayerType").get(kind, {"no version"}), kind


# The reader itself

CAUGHT = {  # what is written -> the problem that it is
    "trt.NoSuchThing": "trt.NoSuchThing is in no version",
    "net.trt.NoSuchThing": "trt.NoSuchThing is in no version",
    "network.add_fully_connected(x)": "add_fully_connected is not in 10.3.0, 10.16.1, 11.4.0, rtx-1.7.1",
    "net.network.add_fully_connected(x)": "INetworkDefinition.add_fully_connected is not in 10.3.0",
    "trt.ActivationType.GELU_ERF": "ActivationType.GELU_ERF is not in 8.6.0",
    "getattr(trt.ActivationType, 'GELU_ERF')": "ActivationType.GELU_ERF is not in 8.6.0",
    "getattr(trt.ActivationType, kind)": "with a name that is no literal",
    "hasattr(trt, 'NoSuchThing')": "trt.NoSuchThing is in no version",
    "kinds = api.trt.ActivationType\nkinds.GELU_ERF": "ActivationType.GELU_ERF is not in 8.6.0",
    "trt, network = net.trt, net.network\nnetwork.add_loop_the_loop()": "INetworkDefinition.add_loop_the_loop is in no",
    "config = builder.create_builder_config()\nconfig.max_workspace_size = 1": "max_workspace_size is not in 10.3.0",
    "def f(config):\n    config.set_flag(trt.BuilderFlag.FP16)": "BuilderFlag.FP16 is not in 11.4.0, rtx-1.7.1",
    "def f(layer: Any):\n    layer.precision = trt.float32": "ILayer.precision is not in 11.4.0, rtx-1.7.1",
    "layer = network.add_pooling_nd(x, k, s)\nlayer.axes = 1": "IPoolingLayer.axes is in no version",
    "configured(network.add_slice(x, a, b, c), axes=1)": "ISliceLayer.axes is not in 8.6.0",
    "if api.strong:\n    flags = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "EXPLICIT_BATCH is not in 11.4.0",
    "trt.bfloat16 if api.rtx else trt.int64": "trt.int64 is not in 8.6.0",
    "if x:\n    trt.bfloat16": "trt.bfloat16 is not in 8.6.0",
    "if not api.strong:\n    pass\ntrt.bfloat16": "trt.bfloat16 is not in 8.6.0",
    "class A:\n  def f(self):\n    self.r = trt.Runtime(log)\n  def g(self):\n    self.r.run()": "Runtime.run is in no",
    "@handles('SQUEEZE')\ndef f():\n    trt.ResizeMode": "trt.ResizeMode is not in 10.16.1, 11.4.0, rtx-1.7.1",
}  # fmt: skip

PASSED = [
    "trt.ActivationType.RELU",
    "if hasattr(trt.ActivationType, 'GELU_ERF'):\n    trt.ActivationType.GELU_ERF",
    "trt.ActivationType.GELU_ERF if hasattr(trt.ActivationType, 'GELU_ERF') else trt.ActivationType.TANH",
    "getattr(network, 'add_normalization_v2', None) or network.add_normalization",
    "trt.bfloat16 if api.strong else trt.float32",
    "hasattr(trt, 'bfloat16') and trt.bfloat16",
    "not api.strong or trt.bfloat16",
    "def f():\n    if not api.strong or x:\n        return\n    trt.bfloat16",
    "if api.major >= 10:\n    trt.bfloat16",
    "if api.strong and x:\n    trt.bfloat16",
    "if not api.strong:\n    config.max_workspace_size = trt.BuilderFlag.STRICT_TYPES",
    "@handles('SQUEEZE')\ndef f(layer):\n    trt.LayerType.SQUEEZE",
    "def f(config: Config):\n    config.depths",
    "engine = load_engine(path)\nengine.save(path)",
    "from zoo import trt\ntrt.load()",
    "import zoo.trt\nzoo.trt.load()",
    "for layer in layers:\n    layer.kind",
    "[layer.kind for layer in layers]",
]


@pytest.mark.parametrize("source", CAUGHT)
def test_a_planted_name_is_caught(source: str) -> None:
    (problem,) = read(source).report()
    assert CAUGHT[source] in problem


@pytest.mark.parametrize("source", PASSED)
def test_a_guarded_name_is_not(source: str) -> None:
    assert read(source).report() == []
