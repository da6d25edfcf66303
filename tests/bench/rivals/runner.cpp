// Runs method "forward" of an ExecuTorch program once for each line on stdin.
//
//   runner PROGRAM THREADS
//
// Answers each line with the nanoseconds that the call took; at the end of stdin with the peak resident set in KiB.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

namespace executorch::extension::threadpool {

// The wheel carries the library without this header; declared as ExecuTorch 1.5's extension/threadpool/threadpool.h.
class ThreadPool;
ThreadPool *get_threadpool();
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};

}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;

// Deterministic values in [-1, 1): what a step costs does not depend on them, but infinities and NaN might slow it.
TensorPtr make_input(const executorch::runtime::TensorInfo &info) {
  std::vector<executorch::aten::SizesType> sizes(info.sizes().begin(), info.sizes().end());
  std::vector<uint8_t> bytes(info.nbytes(), 0);
  uint32_t state = 12345;
  for (size_t i = 0; i < bytes.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    const float value = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
    if (info.scalar_type() == ScalarType::Float && i % 4 == 0) {
      std::memcpy(bytes.data() + i, &value, sizeof(value));
    } else if (info.scalar_type() == ScalarType::Half && i % 2 == 1) {
      bytes[i] = state & 0x80000000U ? 0xB8 : 0x38;  // -0.5 or 0.5
    } else if (info.scalar_type() == ScalarType::Long && i % 8 == 0) {
      bytes[i] = 100;
    }
  }
  return executorch::extension::make_tensor_ptr(std::move(sizes), std::move(bytes), {}, {}, info.scalar_type());
}

long peak_resident_kib() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmHWM:", 0) == 0) {
      return std::atol(line.c_str() + 6);
    }
  }
  return 0;
}

}  // namespace

int main(int count, char **arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: runner PROGRAM THREADS\n");
    return 2;
  }
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
      static_cast<uint32_t>(std::atoi(arguments[2])));
  Module module(arguments[1], Module::LoadMode::Mmap);
  const auto meta = module.method_meta("forward");
  if (!meta.ok()) {
    std::fprintf(stderr, "cannot load the program: error %d\n", static_cast<int>(meta.error()));
    return 3;
  }
  std::vector<TensorPtr> tensors;
  std::vector<EValue> inputs;
  for (size_t i = 0; i < meta->num_inputs(); ++i) {
    tensors.push_back(make_input(meta->input_tensor_meta(i).get()));
    inputs.emplace_back(*tensors.back());
  }
  std::printf("ready\n");
  std::fflush(stdout);
  for (int character = std::getchar(); character != EOF; character = std::getchar()) {
    const auto start = std::chrono::steady_clock::now();
    const auto result = module.forward(inputs);
    const auto taken = std::chrono::steady_clock::now() - start;
    if (!result.ok()) {
      std::fprintf(stderr, "the program failed: error %d\n", static_cast<int>(result.error()));
      return 4;
    }
    std::printf("%lld\n",
                static_cast<long long>(std::chrono::duration_cast<std::chrono::nanoseconds>(taken).count()));
    std::fflush(stdout);
  }
  std::printf("%ld\n", peak_resident_kib());
  return 0;
}
