"""The runtimes by name, and what each is."""

RUNTIMES = {
    "torch": "PyTorch, eager",
    "torch-fp16": "PyTorch, eager, float16",
    "compile": "PyTorch, torch.compile",
    "compile-fp16": "PyTorch, torch.compile, float16",
    "graphs": "PyTorch, CUDA graphs",
    "graphs-fp16": "PyTorch, CUDA graphs, float16",
    "ort": "ONNX Runtime",
}
