// Every call names its device first: a thread has one at a time, and calls come from several. Memory is the driver's
// stream-ordered pool (docs/adr/0023-device-memory-from-the-drivers-pool.md).
#include "kernels/cuda/cuda_stream.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr int kOldestMajor = 8;  // compute capability of what is built first (CMakeLists.txt)
constexpr size_t kMarks = 4096;  // moments that are remembered

absl::Status missing(std::string what) { return absl::FailedPreconditionError(std::move(what)); }

struct Graph final : gpu::Recorded {
  explicit Graph(cudaGraphExec_t made) : exec(made) {}
  ~Graph() override { cudaGraphExecDestroy(exec); }
  cudaGraphExec_t exec;
};

class CudaStream final : public gpu::Stream {
 public:
  CudaStream(int32_t device, std::string description) : device_(device), description_(std::move(description)) {}
  ~CudaStream() override;

  absl::Status open();

  std::string description() const override { return description_; }
  const gpu::DeviceLimits& limits() const override { return limits_; }
  bool failed() const override;
  std::string error() const override;
  void fail(const std::string& why) override;
  void* allocate(size_t bytes) override;
  void release(void* memory) override;
  void* allocate_pinned(size_t bytes) override;
  void release_pinned(void* memory) override;
  gpu::StreamMemory memory() const override;
  void upload(const gpu::Rows& device, const gpu::Rows& pinned, size_t row_bytes, size_t rows) override;
  void download(const gpu::Rows& pinned, const gpu::Rows& device, size_t row_bytes, size_t rows) override;
  void copy(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows) override;
  void zero(void* device, size_t bytes) override;
  void wait() override;
  int64_t mark() override;
  void wait_for(int64_t mark) override;
  double seconds(int64_t from, int64_t to) override;
  void begin_recording() override;
  std::unique_ptr<gpu::Recorded> end_recording() override;
  void replay(const gpu::Recorded& recorded) override;
  void* native() override;

 private:
  bool check(cudaError_t error, const char* call);
  // Whether work is being remembered, of which `what` cannot be a part; then the stream has failed.
  bool refused_while_recording(const char* what);
  void copy_rows(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows, cudaMemcpyKind kind);
  bool remembers(int64_t mark) const { return mark >= 0 && mark < next_mark_ && next_mark_ - mark <= int64_t{kMarks}; }

  int32_t device_;
  std::string description_;
  gpu::DeviceLimits limits_;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  std::array<cudaEvent_t, kMarks> events_ = {};
  int64_t next_mark_ = 0;
  std::recursive_mutex order_;  // memory comes and goes between recordings, whichever thread asks
  std::atomic<bool> recording_ = false;
  mutable std::mutex mutex_;  // of what follows
  std::string error_;
  std::map<void*, size_t> pinned_;  // bytes
};

absl::Status CudaStream::open() {
  const auto opened = [this](cudaError_t error, const char* call) {
    return check(error, call) ? absl::OkStatus() : absl::InternalError(this->error());
  };
  PKV_RETURN_IF_ERROR(opened(cudaSetDevice(device_), "cudaSetDevice"));
  int shared = 0;
  PKV_RETURN_IF_ERROR(opened(cudaDeviceGetAttribute(&limits_.multiprocessors, cudaDevAttrMultiProcessorCount, device_),
                             "multiprocessors"));
  PKV_RETURN_IF_ERROR(opened(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_),
                             "shared memory of a block"));
  limits_.shared_bytes = static_cast<size_t>(shared);
  PKV_RETURN_IF_ERROR(opened(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
  cudaMemPoolProps pool{};
  pool.allocType = cudaMemAllocationTypePinned;  // as CUDA calls device memory that does not move
  pool.location = {.type = cudaMemLocationTypeDevice, .id = device_};
  PKV_RETURN_IF_ERROR(opened(cudaMemPoolCreate(&pool_, &pool), "cudaMemPoolCreate"));
  // What was given back stays with the process: whoever asks next gets it without a call to the driver.
  uint64_t kept = std::numeric_limits<uint64_t>::max();
  return opened(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &kept), "cudaMemPoolSetAttribute");
}

CudaStream::~CudaStream() {
  cudaSetDevice(device_);
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (cudaEvent_t event : events_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

// ---- errors

bool CudaStream::check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return true;
  fail(absl::StrCat(call, ": ", cudaGetErrorString(error)));
  return false;
}

bool CudaStream::failed() const {
  std::lock_guard lock(mutex_);
  return !error_.empty();
}

std::string CudaStream::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void CudaStream::fail(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (error_.empty()) error_ = why;
}

bool CudaStream::refused_while_recording(const char* what) {
  if (!recording_) return false;
  fail(absl::StrCat(what, " while work is recorded"));
  return true;
}

void* CudaStream::native() {
  check(cudaSetDevice(device_), "cudaSetDevice");
  return stream_;
}

// ---- memory

void* CudaStream::allocate(size_t bytes) {
  std::lock_guard order(order_);
  if (failed() || refused_while_recording("memory is asked for")) return nullptr;
  void* memory = nullptr;
  cudaSetDevice(device_);
  cudaError_t error = cudaMallocFromPoolAsync(&memory, bytes, pool_, stream_);
  if (error == cudaErrorMemoryAllocation) {  // perhaps for what the pool keeps in other sizes
    cudaGetLastError();
    if (check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize") &&
        check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo")) {
      error = cudaMallocFromPoolAsync(&memory, bytes, pool_, stream_);
    }
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it was no failure of the device, and the next call is not to hear of it
    return nullptr;
  }
  return check(error, "cudaMallocFromPoolAsync") ? memory : nullptr;
}

void CudaStream::release(void* memory) {
  std::lock_guard order(order_);
  if (refused_while_recording("memory is given back")) return;
  cudaSetDevice(device_);
  check(cudaFreeAsync(memory, stream_), "cudaFreeAsync");
}

void* CudaStream::allocate_pinned(size_t bytes) {
  if (refused_while_recording("pinned memory is asked for")) return nullptr;
  void* memory = nullptr;
  cudaSetDevice(device_);
  if (cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  std::lock_guard lock(mutex_);
  pinned_[memory] = bytes;
  return memory;
}

void CudaStream::release_pinned(void* memory) {
  cudaSetDevice(device_);
  check(cudaFreeHost(memory), "cudaFreeHost");
  std::lock_guard lock(mutex_);
  pinned_.erase(memory);
}

gpu::StreamMemory CudaStream::memory() const {
  gpu::StreamMemory memory;
  cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &memory.used);
  cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &memory.reserved);
  std::lock_guard lock(mutex_);
  for (const auto& [address, bytes] : pinned_) memory.pinned += bytes;
  return memory;
}

// ---- work

void CudaStream::copy_rows(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows,
                           cudaMemcpyKind kind) {
  if (row_bytes == 0 || rows == 0 || failed()) return;
  cudaSetDevice(device_);
  if (rows == 1 || (to.pitch == row_bytes && from.pitch == row_bytes)) {
    check(cudaMemcpyAsync(to.data, from.data, rows * row_bytes, kind, stream_), "cudaMemcpyAsync");
  } else {
    check(cudaMemcpy2DAsync(to.data, to.pitch, from.data, from.pitch, row_bytes, rows, kind, stream_),
          "cudaMemcpy2DAsync");
  }
}

void CudaStream::upload(const gpu::Rows& device, const gpu::Rows& pinned, size_t row_bytes, size_t rows) {
  if (refused_while_recording("something is uploaded")) return;
  copy_rows(device, pinned, row_bytes, rows, cudaMemcpyHostToDevice);
}

void CudaStream::download(const gpu::Rows& pinned, const gpu::Rows& device, size_t row_bytes, size_t rows) {
  if (refused_while_recording("something is downloaded")) return;
  copy_rows(pinned, device, row_bytes, rows, cudaMemcpyDeviceToHost);
}

void CudaStream::copy(const gpu::Rows& to, const gpu::Rows& from, size_t row_bytes, size_t rows) {
  copy_rows(to, from, row_bytes, rows, cudaMemcpyDeviceToDevice);
}

void CudaStream::zero(void* device, size_t bytes) {
  if (bytes == 0 || failed()) return;
  cudaSetDevice(device_);
  check(cudaMemsetAsync(device, 0, bytes, stream_), "cudaMemsetAsync");
}

// ---- moments

void CudaStream::wait() {
  if (failed() || refused_while_recording("the host waits")) return;
  cudaSetDevice(device_);
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

int64_t CudaStream::mark() {
  cudaEvent_t& event = events_[static_cast<size_t>(next_mark_) % kMarks];
  if (!failed() && !refused_while_recording("a moment is marked")) {
    cudaSetDevice(device_);
    if ((event != nullptr || check(cudaEventCreate(&event), "cudaEventCreate"))) {
      check(cudaEventRecord(event, stream_), "cudaEventRecord");
    }
  }
  return next_mark_++;
}

void CudaStream::wait_for(int64_t mark) {
  if (failed() || refused_while_recording("the host waits")) return;
  if (!remembers(mark)) return wait();
  cudaSetDevice(device_);
  check(cudaEventSynchronize(events_[static_cast<size_t>(mark) % kMarks]), "cudaEventSynchronize");
}

double CudaStream::seconds(int64_t from, int64_t to) {
  if (failed() || !remembers(from) || !remembers(to)) return 0;
  float milliseconds = 0;
  cudaSetDevice(device_);
  const bool measured = check(cudaEventElapsedTime(&milliseconds, events_[static_cast<size_t>(from) % kMarks],
                                                   events_[static_cast<size_t>(to) % kMarks]),
                              "cudaEventElapsedTime");
  return measured ? 1e-3 * static_cast<double>(milliseconds) : 0;
}

// ---- recordings

void CudaStream::begin_recording() {
  if (failed()) return;
  order_.lock();
  cudaSetDevice(device_);
  // What other threads do meanwhile is no part of it.
  recording_ = check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  if (!recording_) order_.unlock();
}

std::unique_ptr<gpu::Recorded> CudaStream::end_recording() {
  if (!recording_.exchange(false)) return nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaSetDevice(device_);
  const bool ended = check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  order_.unlock();
  if (!ended) return nullptr;
  check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  cudaGraphDestroy(graph);
  std::unique_ptr<gpu::Recorded> recorded;
  if (exec != nullptr) recorded = std::make_unique<Graph>(exec);
  return failed() ? nullptr : std::move(recorded);
}

void CudaStream::replay(const gpu::Recorded& recorded) {
  if (failed()) return;
  cudaSetDevice(device_);
  check(cudaGraphLaunch(static_cast<const Graph&>(recorded).exec, stream_), "cudaGraphLaunch");
}

}  // namespace

absl::StatusOr<std::string> probe_cuda_device(int32_t device) {
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess) {
    cudaGetLastError();
    // Without any driver the runtime says that the one there is were too old.
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return missing("no NVIDIA driver (libcuda.so.1)");
    return missing(absl::StrCat("the NVIDIA driver is of CUDA ", driver / 1000, ".", driver % 1000 / 10,
                                ", the program of ", CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10, ": ",
                                cudaGetErrorString(error)));
  }
  if (device >= devices) return missing(absl::StrCat("no GPU ", device, ": there are ", devices));
  cudaDeviceProp properties{};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device); error != cudaSuccess) {
    return missing(absl::StrCat("GPU ", device, ": ", cudaGetErrorString(error)));
  }
  const std::string name = absl::StrFormat("%s, sm_%d%d, %.0f GiB", properties.name, properties.major, properties.minor,
                                           static_cast<double>(properties.totalGlobalMem) / (1 << 30));
  if (properties.major < kOldestMajor) {
    return missing(absl::StrCat("GPU ", device, " is too old: ", name, "; sm_", kOldestMajor, "0 or later"));
  }
  int pools = 0;
  if (cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device) != cudaSuccess || pools == 0) {
    return missing(absl::StrCat("GPU ", device, " (", name, ") has no stream-ordered memory pools"));
  }
  return absl::StrCat("GPU ", device, ": ", name);
}

absl::StatusOr<std::shared_ptr<gpu::Stream>> make_cuda_stream(int32_t device) {
  PKV_ASSIGN_OR_RETURN(std::string description, probe_cuda_device(device));
  auto stream = std::make_shared<CudaStream>(device, std::move(description));
  PKV_RETURN_IF_ERROR(stream->open());
  return std::shared_ptr<gpu::Stream>(std::move(stream));
}

}  // namespace pkv
