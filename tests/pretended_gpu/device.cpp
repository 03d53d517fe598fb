// A pretended CUDA device for a CPU build of torch. Tensors say "cuda", their memory is the host's
// and their kernels are the CPU's, so that what a program does on a GPU runs without one: torch's
// rules of CUDA autocast, device guards, GradScaler. Mixed devices raise as they do on a GPU; memory
// is counted as the caching allocator would; what launches a kernel or waits for one is told to a
// hook. Speed and numerics of a GPU, streams, graphs, NCCL and sparse tensors are not pretended.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/NativeFunctions.h>
#include <ATen/native/Resize.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <atomic>
#include <map>
#include <mutex>
#include <set>

namespace {
using at::Tensor;
using c10::Device; using c10::DeviceIndex; using c10::Storage; using c10::Stream;
using torch::jit::Stack;

constexpr int DEVICES = 2;
constexpr auto CUDA = c10::DeviceType::CUDA;
const c10::DispatchKeySet ON_DEVICE(c10::DispatchKey::CUDA), ON_HOST(c10::DispatchKey::CPU);
thread_local DeviceIndex current = 0;
std::atomic<int64_t> in_use[DEVICES], peak[DEVICES], launches{0}, limit{0};
std::mutex guard;
std::set<const void*> pinned;
PyObject* hook = nullptr;  // called with (kind, operator)
bool every_launch = false;
void tell(const char* kind, const std::string& name) {
  if (hook == nullptr) return;
  pybind11::gil_scoped_acquire gil;
  PyObject* result = PyObject_CallFunction(hook, "ss", kind, name.c_str());
  if (result == nullptr) throw pybind11::error_already_set(); else Py_DECREF(result);
}

// -- memory -----------------------------------------------------------------------------------
int64_t block_size(int64_t bytes) { return (bytes + 511) / 512 * 512; }
void take(int64_t bytes, int device) {
  int64_t now = in_use[device] += block_size(bytes);
  if (limit > 0 && now > limit) {
    in_use[device] -= block_size(bytes); TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes, " bytes");
  }
  int64_t most = peak[device];
  while (now > most && !peak[device].compare_exchange_weak(most, now)) {}
}
// Memory of the host, held by `keep`, that counts as the device's until it is released.
c10::DataPtr counted(void* at, std::shared_ptr<void> keep, int64_t bytes, int device) {
  take(bytes, device);
  auto* held = new std::function<void()>([=] { (void)keep; in_use[device] -= block_size(bytes); });
  auto drop = [](void* f) { (*static_cast<std::function<void()>*>(f))(); delete static_cast<std::function<void()>*>(f); };
  return {at, held, drop, Device(CUDA, device)};
}
c10::DataPtr lent(const Storage& host, int device) {
  return counted(host.mutable_data(), std::make_shared<Storage>(host), host.nbytes(), device);
}
struct Allocator : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto data = std::make_shared<c10::DataPtr>(c10::GetCPUAllocator()->allocate(n));
    return counted(data->get(), data, n, current);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
} allocator;
struct PinnedAllocator final : Allocator {
  static void unpin(void* context) {
    auto* data = static_cast<c10::DataPtr*>(context);
    std::lock_guard<std::mutex> lock(guard); pinned.erase(data->get());
    delete data;
  }
  c10::DataPtr allocate(size_t n) override {
    auto* data = new c10::DataPtr(c10::GetCPUAllocator()->allocate(n));
    std::lock_guard<std::mutex> lock(guard); pinned.insert(data->get());
    return {data->get(), data, &unpin, Device(c10::kCPU)};
  }
} pinned_allocator;
bool is_pinned(const void* data) { std::lock_guard<std::mutex> lock(guard); return pinned.count(data) > 0; }
Storage storage_of(size_t bytes, c10::DataPtr data, c10::Allocator* by = &allocator) {
  return Storage(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), bytes, std::move(data), by, true));
}

// -- generators -------------------------------------------------------------------------------
struct DeviceGenerator final : c10::GeneratorImpl {
  c10::intrusive_ptr<at::CPUGeneratorImpl> inner = c10::make_intrusive<at::CPUGeneratorImpl>();
  explicit DeviceGenerator(DeviceIndex i) : c10::GeneratorImpl(Device(CUDA, i), ON_DEVICE) {}
  void set_current_seed(uint64_t seed) override { inner->set_current_seed(seed); }
  void set_offset(uint64_t) override {} uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return inner->current_seed(); } uint64_t seed() override { return inner->seed(); }
  void set_state(const c10::TensorImpl& state) override { inner->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new DeviceGenerator(device().index()); copy->inner->set_state(*inner->get_state());
    return copy;
  }
};
at::Generator host_generator(const at::Generator& device) {
  return at::Generator(static_cast<DeviceGenerator*>(device.unsafeGetGeneratorImpl())->inner);
}
const at::Generator& default_generator(DeviceIndex index) {
  static std::vector<at::Generator> all{at::make_generator<DeviceGenerator>(0), at::make_generator<DeviceGenerator>(1)};
  return all[index < 0 ? current : index];
}

// -- what torch asks of a device --------------------------------------------------------------
struct Guard final : c10::impl::NoOpDeviceGuardImpl<CUDA> {
  Device exchangeDevice(Device d) const override { return {CUDA, std::exchange(current, d.index())}; }
  Device getDevice() const override { return {CUDA, current}; } void setDevice(Device d) const override { current = d.index(); }
  void uncheckedSetDevice(Device d) const noexcept override { current = d.index(); }
  Stream getStream(Device d) const noexcept override { return Stream(Stream::DEFAULT, d); }
  Stream getNewStream(Device d, int) const override { return getStream(d); }
  Stream exchangeStream(Stream s) const noexcept override { return s; }
  DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  void record(void**, const Stream&, DeviceIndex, c10::EventFlag) const override {} void block(void*, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {} void init() const override {}
  bool isBuilt() const override { return true; } bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; } bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return DEVICES; } DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex d) const override { current = d; }
  DeviceIndex exchangeDevice(DeviceIndex d) const override { return std::exchange(current, d); }
  DeviceIndex maybeExchangeDevice(DeviceIndex d) const override { return std::exchange(current, d < 0 ? current : d); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  const at::Generator& getDefaultGenerator(DeviceIndex i) const override { return default_generator(i); }
  at::Generator getNewGenerator(DeviceIndex i) const override { return at::make_generator<DeviceGenerator>(i < 0 ? current : i); }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)

// -- tensors of the device as the CPU's kernels see them, and back ------------------------------
Tensor like(const Tensor& x, Storage storage, c10::DispatchKeySet keys) {
  auto result = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, x.dtype());
  auto* impl = result.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(x.sizes(), x.strides());
  impl->set_storage_offset(x.storage_offset());
  if (x.is_conj()) result._set_conj(true);
  if (x.is_neg()) result._set_neg(true);
  if (x.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return result;
}
struct Aliases {
  std::map<c10::StorageImpl*, Storage> to_host, to_device;
  int device = -1;
  Tensor host(const Tensor& x) {
    if (!x.defined() || !x.is_cuda()) return x;
    TORCH_CHECK(x.layout() == at::kStrided, "pretended CUDA knows no ", x.layout());
    auto [known, fresh] = to_host.try_emplace(x.storage().unsafeGetStorageImpl());
    if (fresh) {
      auto* keep = new Storage(x.storage());
      auto drop = [](void* p) { delete static_cast<Storage*>(p); };
      c10::DataPtr data(x.storage().mutable_data(), keep, drop, Device(c10::kCPU));
      known->second = storage_of(x.storage().nbytes(), std::move(data), c10::GetCPUAllocator());
      to_device.emplace(known->second.unsafeGetStorageImpl(), x.storage());
    }
    return like(x, known->second, ON_HOST);
  }
  Tensor back(const Tensor& x) {
    if (!x.defined() || x.is_cuda()) return x;
    auto [known, fresh] = to_device.try_emplace(x.storage().unsafeGetStorageImpl());
    if (fresh) known->second = storage_of(x.storage().nbytes(), lent(x.storage(), device));
    return like(x, known->second, ON_DEVICE);
  }
  // takes over what an operator that writes did to the alias: other memory, another size
  void settle(const Tensor& x, const Tensor& alias) {
    if (!x.defined() || !x.is_cuda()) return;
    const auto& memory = alias.storage();
    if (memory.data() != x.storage().data()) {
      x.storage().unsafeGetStorageImpl()->set_data_ptr(lent(memory, device));
      x.storage().unsafeGetStorageImpl()->set_nbytes(memory.nbytes());
    }
    if (x.sizes() != alias.sizes() || x.strides() != alias.strides())
      x.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides());
  }
};

// -- every operator -----------------------------------------------------------------------------
const std::set<std::string> WAITING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::histc", "aten::repeat_interleave", "aten::multinomial"};
const std::set<std::string> INDEXING = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"};
// beside the pointwise ones: operators that take a number which lies on the host
const std::set<std::string> WITH_NUMBERS = {
    "aten::masked_fill", "aten::masked_fill_", "aten::fill_", "aten::index_fill_", "aten::where", "aten::lerp", "aten::lerp_",
    "aten::_amp_foreach_non_finite_check_and_unscale_", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};
std::vector<Tensor> tensors_in(const c10::IValue& value) {
  if (value.isTensor()) return {value.toTensor()};
  std::vector<Tensor> all;
  if (value.isList()) for (const auto& item : value.toListRef()) if (item.isTensor()) all.push_back(item.toTensor());
  return all;
}
// Finds the device of a call and whether it waits; raises for tensors of several devices.
bool inspect(const c10::OperatorHandle& op, at::ArrayRef<c10::IValue> given, Aliases& aliases) {
  const auto& name = op.schema().name();
  bool waits = WAITING.count(name) > 0, numbers = op.hasTag(at::Tag::pointwise) || WITH_NUMBERS.count(name) > 0;
  std::vector<std::pair<Tensor, bool>> tensors;  // and whether it is an index
  for (size_t i = 0; i < given.size(); i++) {
    const bool index = INDEXING.count(name) > 0 && given[i].isList();
    for (const auto& x : tensors_in(given[i])) {
      if (!x.defined()) continue;
      tensors.emplace_back(x, index);
      // a mask has to be counted, an index on the host to be uploaded
      waits |= index && (x.scalar_type() == at::kBool || !x.is_cuda());
      if (x.is_cuda() && aliases.device < 0) aliases.device = x.device().index();
      // one number under a mask fills it, without a wait
      if (op.schema().arguments()[i].name() == "values") waits &= x.numel() != 1;
    }
    const bool named = given[i].isDevice() && given[i].toDevice().has_index();
    if (named && aliases.device < 0) aliases.device = given[i].toDevice().index();
  }
  if (aliases.device < 0) aliases.device = current;
  for (const auto& [x, index] : tensors) {
    const bool number = x.dim() == 0 && (numbers || x.unsafeGetTensorImpl()->is_wrapped_number());
    const bool fits = x.is_cuda() ? x.device().index() == aliases.device : index || (number && x.is_cpu());
    TORCH_CHECK(fits, "Expected all tensors to be on the same device, but found cuda:", aliases.device, " and ", x.device(), ", ", name);
  }
  return waits;
}
template <typename F> c10::IValue each_tensor(const c10::IValue& value, F change) {
  if (value.isTensor()) return change(value.toTensor());
  if (!value.isList() || tensors_in(value).empty()) return value;
  auto list = value.toList().copy();
  for (size_t i = 0; i < list.size(); i++) if (list.get(i).isTensor()) list.set(i, change(list.get(i).toTensor()));
  return list;
}
c10::IValue for_host(const c10::IValue& value, const c10::Argument& argument, Aliases& aliases) {
  if (value.isDevice()) return Device(c10::kCPU);
  if (value.isGenerator()) {
    const auto where = value.toGenerator().device();
    TORCH_CHECK(where == Device(CUDA, aliases.device), "Expected a generator of cuda:", aliases.device, ", found ", where);
    return host_generator(value.toGenerator());
  }
  if (value.isNone() && argument.type()->str().find("Generator") != std::string::npos)
    return host_generator(default_generator(aliases.device));
  return each_tensor(value, [&](const Tensor& x) { return aliases.host(x); });
}
void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema(); const size_t count = schema.arguments().size(), begin = stack->size() - count;
  const std::vector<c10::IValue> given(stack->begin() + begin, stack->end());
  Aliases aliases; const bool waits = inspect(op, given, aliases);
  std::vector<std::pair<Tensor, Tensor>> written;
  auto writes = [](const c10::Argument& a) { return a.alias_info() && a.alias_info()->isWrite(); };
  for (size_t i = 0; i < count; i++) {
    auto& value = (*stack)[begin + i];
    value = for_host(given[i], schema.arguments()[i], aliases);
    if (!writes(schema.arguments()[i])) continue;
    const auto before = tensors_in(given[i]), after = tensors_in(value);
    for (size_t k = 0; k < before.size(); k++) written.emplace_back(before[k], after[k]);
  }
  launches++;
  if (waits || every_launch) tell(waits ? "wait" : "launch", schema.name());
  const Stack arguments(stack->begin() + begin, stack->end());
  try {
    op.redispatchBoxed(ON_HOST, stack);
  } catch (const c10::NotImplementedError&) {  // a GPU has kernels for halves where a CPU has none
    auto half = at::kFloat;
    auto wide = [&](const Tensor& x) { return at::isReducedFloatingType(x.scalar_type()) ? (half = x.scalar_type(), x.to(at::kFloat)) : x; };
    stack->resize(begin);
    for (const auto& value : arguments) stack->push_back(each_tensor(value, wide));
    const Stack wider(stack->begin() + begin, stack->end());
    op.redispatchBoxed(ON_HOST, stack);
    for (size_t i = 0; i < count; i++)
      if (writes(schema.arguments()[i]) && arguments[i].isTensor()) arguments[i].toTensor().copy_(wider[i].toTensor());
    for (size_t i = begin; i < stack->size(); i++) (*stack)[i] = each_tensor((*stack)[i], [&](const Tensor& x) { return x.to(half); });
  }
  for (auto& [original, alias] : written) aliases.settle(original, alias);
  const size_t first = stack->size() - schema.returns().size();
  for (size_t i = 0; i < schema.returns().size(); i++) {
    const auto* result = schema.returns()[i].alias_info();
    size_t same = result && result->isWrite() ? 0 : count;  // the argument that is returned
    for (; same < count; same++) {
      const auto* argument = schema.arguments()[same].alias_info();
      if (argument != nullptr && *argument == *result) break;
    }
    auto& value = (*stack)[first + i];
    value = same < count ? given[same] : each_tensor(value, [&](const Tensor& x) { return aliases.back(x); });
  }
}

// -- what may not go through the fallback -------------------------------------------------------
Tensor& copy(Tensor& self, const Tensor& source, bool non_blocking) {
  if (source._is_zerotensor()) return self.zero_();
  Aliases aliases;
  aliases.device = (self.is_cuda() ? self : source).device().index();
  auto to = aliases.host(self), from = aliases.host(source);
  const bool up = self.is_cuda() && !source.is_cuda(), down = !self.is_cuda() && source.is_cuda();
  const bool pin = up && is_pinned(source.storage().data());
  if (up) tell(non_blocking && pin ? "upload" : "wait", pin ? "upload" : "pageable upload");
  else if (down) tell(non_blocking ? "download" : "wait", "download");
  else if (every_launch) tell("launch", "aten::copy_");
  launches++;
  to.copy_(from);
  return self;
}
using Sizes = c10::IntArrayRef; using Type = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>; using Where = std::optional<Device>; using Format = std::optional<at::MemoryFormat>;
Device chosen(Where device) { return device && device->has_index() ? *device : Device(CUDA, current); }
Tensor empty(Sizes size, Type type, Layout, Where device, std::optional<bool>, Format format) {
  c10::DeviceGuard on(chosen(device));
  return at::detail::empty_generic(size, &allocator, ON_DEVICE, c10::dtype_or_default(type), format);
}
Tensor empty_strided(Sizes size, Sizes stride, Type type, Layout, Where device, std::optional<bool>) {
  c10::DeviceGuard on(chosen(device));
  return at::detail::empty_strided_generic(size, stride, &allocator, ON_DEVICE, c10::dtype_or_default(type));
}
Tensor& set_whole(Tensor& self, Storage from) {
  return at::native::set_storage_cpu_(self, from, 0, from.nbytes() / self.dtype().itemsize(), {});
}
const Tensor& resize(const Tensor& self, Sizes size, Format format) {
  c10::DeviceGuard on(self.device());
  return at::native::resize_(self, size, format);
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty); m.impl("empty_strided", &empty_strided); m.impl("copy_", &copy);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view); m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold); m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Storage", &set_whole);
  const std::set<std::string> done = {"empty.memory_format", "empty_strided", "copy_", "as_strided", "view", "_reshape_alias", "unfold", "resize_"};
  // one kernel on a GPU, made of several where the dispatcher would choose the general version
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& known : dispatcher.getAllOpNames()) {
    if (known.name.rfind("aten::", 0) != 0) continue;
    const std::string name = known.name.substr(6) + (known.overload_name.empty() ? "" : "." + known.overload_name);
    if (done.count(name)) continue;
    const auto op = dispatcher.findOp(known);
    auto has = [&](c10::DispatchKey key) { return op && op->hasKernelForDispatchKey(key); };
    const bool both = has(c10::DispatchKey::CPU) && has(c10::DispatchKey::CompositeExplicitAutograd);
    const bool named = name == "convolution" || name == "convolution_backward" || name == "_convolution" || name == "silu_backward";
    if (both || named || name.rfind("_foreach_", 0) == 0)
      m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}
}  // namespace

PYBIND11_MODULE(pretended_cuda, m) {
  m.def("set_hook", [](pybind11::object f, bool every) { hook = f.is_none() ? nullptr : f.inc_ref().ptr(); every_launch = every; });
  m.def("set_device", [](int i) { current = i; }); m.def("current", [] { return static_cast<int>(current); });
  m.def("default_generator", [](int i) { return default_generator(i); });
  m.def("memory", [](int i) { return std::make_pair(in_use[i].load(), peak[i].load()); });
  m.def("reset_peak", [](int i) { peak[i] = in_use[i].load(); });
  m.def("limit", [](int64_t bytes) { limit = bytes; }); m.def("launches", [] { return launches.load(); });
}
