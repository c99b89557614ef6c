"""A TensorRT without a GPU, by the names of its real Python API: plans hold the ONNX file, which ONNX Runtime computes.

It keeps the rules that the real one has: tensors want a shape within the profile and an address before a call, and
work is put into the stream.
"""

from __future__ import annotations

import enum
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnxruntime


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = "tf32"


class TensorIOMode(enum.Enum):
    INPUT = "input"
    OUTPUT = "output"


TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


def nptype(kind):
    if kind == "bfloat16":
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return np.dtype(kind)


class Builder:
    def __init__(self, logger):
        assert isinstance(logger, ILogger)
        self.logger = logger

    def create_network(self, flags):
        return types.SimpleNamespace(flags=flags, path=None)

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        if network.flags != 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            self.logger.log(ILogger.Severity.ERROR, "weakly typed networks are gone")
            return None
        if network.get_input(0).shape[0] == -1 and config.profile is None:
            self.logger.log(ILogger.Severity.ERROR, "an open shape has no profile")
            return None
        config.cache_content = config.cache_content + b"timed;"
        head = {"tf32": config.tf32, "batches": config.profile and config.profile.batches}
        return b"ftrt" + json.dumps(head).encode() + b"\n" + Path(network.path).read_bytes()


class Config:
    def __init__(self):
        self.tf32, self.profile, self.cache_content = True, None, b""

    def set_flag(self, flag):
        self.tf32 = True

    def clear_flag(self, flag):
        self.tf32 = False

    def add_optimization_profile(self, profile):
        self.profile = profile

    def create_timing_cache(self, content):
        return types.SimpleNamespace(content=bytes(content))

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache_content = cache.content
        return True

    def get_timing_cache(self):
        return types.SimpleNamespace(serialize=lambda: self.cache_content)


class Profile:
    def set_shape(self, name, least, best, most):
        self.batches = [shape[0] for shape in (least, best, most)]


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse_from_file(self, path):
        self.network.path = path
        shape = tuple(side if isinstance(side, int) else -1 for side in _session(path).get_inputs()[0].shape)
        self.network.get_input = lambda index: types.SimpleNamespace(name="images", shape=shape)
        return True


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, content):
        head, _, model = bytes(content).partition(b"\n")
        if head[:4] != b"ftrt" or not model:
            self.logger.log(ILogger.Severity.ERROR, "Magic tag does not match")
            return None
        return Engine(json.loads(head[4:]), model, self.logger)


class Engine:
    def __init__(self, head, model, logger):
        self.head, self.logger, self.session = head, logger, _session(model)
        self.tensors = {each.name: each for each in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return tuple(side if isinstance(side, int) else -1 for side in self.tensors[name].shape)

    def get_tensor_dtype(self, name):
        return TYPES[self.tensors[name].type]

    def get_tensor_profile_shape(self, name, index):
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in self.head["batches"]]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.shape, self.addresses = engine, None, {}

    def _complain(self, message):
        self.engine.logger.log(ILogger.Severity.ERROR, message)
        return False

    def set_input_shape(self, name, shape):
        own = self.engine.get_tensor_shape(name)
        least, _, most = self.engine.head["batches"] or (own[0],) * 3
        if shape[1:] != own[1:] or not least <= shape[0] <= most:
            return self._complain(f"shape {shape} is outside of the profile")
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return (self.shape[0], *self.engine.get_tensor_shape(name)[1:])

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        cuda, shape, addresses = FAKE.cuda, self.shape, dict(self.addresses)
        if shape is None or set(addresses) != set(self.engine.tensors):
            return self._complain("a tensor has no shape or no address")

        def work():
            dtype = np.dtype(self.engine.get_tensor_dtype("images"))
            size = int(np.prod(shape)) * dtype.itemsize
            images = np.frombuffer(cuda.read(addresses["images"], size), dtype).reshape(shape)
            names = [name for name in addresses if name != "images"]
            for name, output in zip(names, self.engine.session.run(names, {"images": images}), strict=True):
                cuda.write(addresses[name], output.tobytes())

        cuda.enqueue(stream, work)
        return True


def _session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


FAKE = types.SimpleNamespace(cuda=None, capturable=True, runtime_cache=None)


def install(monkeypatch, cuda, version="10.13.2.6"):
    """Let `import tensorrt` find this one, and the driver be `cuda`."""
    module = types.ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__ = version
    for each in (
        ILogger,
        NetworkDefinitionCreationFlag,
        BuilderFlag,
        TensorIOMode,
        nptype,
        Builder,
        OnnxParser,
        Runtime,
    ):
        setattr(module, each.__name__, each)
    module.Logger = ILogger
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("vit_deploy.runtimes.cuda.memory.open_library", lambda: cuda)
    monkeypatch.setattr(FAKE, "cuda", cuda)
    return module


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    MALFORMED_ENGINE = 32


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = "lazy"
    EAGER = "eager"


class RuntimeCache:
    """What TensorRT for RTX compiled for a GPU."""

    def __init__(self):
        self.content = b""

    def deserialize(self, content):
        self.content = bytes(content)
        return True

    def serialize(self):
        return self.content + b"compiled;"


class RuntimeForRtx(Runtime):
    def get_engine_validity(self, content):
        whole = bytes(content[:4]) == b"ftrt"
        return (EngineValidity.VALID, 0) if whole else (EngineValidity.INVALID, 1 | 32)

    def deserialize_cuda_engine(self, content):
        head, _, model = bytes(content).partition(b"\n")
        return EngineForRtx(json.loads(head[4:]), model, self.logger)


class EngineForRtx(Engine):
    def create_runtime_config(self):
        found = types.SimpleNamespace(dynamic_shapes_kernel_specialization_strategy=None)
        found.create_runtime_cache = RuntimeCache
        found.set_runtime_cache = lambda cache: setattr(FAKE, "runtime_cache", cache)
        return found

    def create_execution_context(self, config):
        strategy = config.dynamic_shapes_kernel_specialization_strategy
        assert strategy is DynamicShapesKernelSpecializationStrategy.EAGER
        return ContextForRtx(self)


class ContextForRtx(Context):
    def is_stream_capturable(self, stream):
        return FAKE.capturable or self._complain("a kernel is still being compiled")


def install_for_rtx(monkeypatch, version="1.7.1.116"):
    """Let `import tensorrt_rtx` find this one, beside what `install` did."""
    module = types.ModuleType("tensorrt_rtx")
    module.__spec__ = ModuleSpec("tensorrt_rtx", None)
    module.__version__ = version
    kinds = (EngineValidity, EngineInvalidityDiagnostics, DynamicShapesKernelSpecializationStrategy)
    for each in (*kinds, ILogger, TensorIOMode, nptype):
        setattr(module, each.__name__, each)
    module.Runtime = RuntimeForRtx
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setattr(FAKE, "capturable", True)
    monkeypatch.setattr(FAKE, "runtime_cache", None)
