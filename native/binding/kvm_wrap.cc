#include "binding/kvm_wrap.h"

#include <memory>
#include <utility>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/task.h"
#include "binding/tracker_wrap.h"
#include "core/kvm/kvm_log_tracker.h"
#include "core/kvm/kvm_machine.h"
#include "core/kvm/kvm_ring_tracker.h"

namespace chkpt::binding {
namespace {

#ifdef CHKPT_HAVE_KVM

constexpr std::uint64_t kRingEntriesLimit = 1 << 20;

using StatePart = std::span<const std::uint8_t>;

Napi::Value ToJsBytes(Napi::Env env, StatePart bytes) { return CopyToJs<std::uint8_t>(env, bytes); }

Napi::Value ReturnBytes(Napi::Env env, Result<StateBytes> bytes) {
  if (bytes.ok()) return ToJsBytes(env, bytes.value());
  Throw(env, bytes.error());
  return {};
}

Napi::Value ReturnNothing(Napi::Env env, Status status) {
  if (!status.ok()) Throw(env, status.error());
  return env.Undefined();
}

std::optional<std::uint64_t> Below(const Napi::Value& value, std::uint64_t limit) {
  const auto number = ToUint64(value);
  return number && *number < limit ? number : std::nullopt;
}

// Entries as the bytes of kvm_cpuid_entry2.
std::optional<std::vector<kvm_cpuid_entry2>> ToCpuid(const Napi::Value& value) {
  const auto bytes = ToBytes(value);
  if (!bytes || bytes->size() % sizeof(kvm_cpuid_entry2) != 0) return std::nullopt;
  std::vector<kvm_cpuid_entry2> entries(bytes->size() / sizeof(kvm_cpuid_entry2));
  std::copy(bytes->begin(), bytes->end(), reinterpret_cast<std::uint8_t*>(entries.data()));
  return entries;
}

std::optional<KvmOptions> ToOptions(const Napi::Object& object) {
  KvmOptions options;
  const Napi::Value cpuid = object.Get("cpuid");
  const Napi::Value ranges = object.Get("ranges");
  if (!cpuid.IsArray() || !ranges.IsArray()) return std::nullopt;
  for (std::uint32_t i = 0; i < cpuid.As<Napi::Array>().Length(); ++i) {
    auto entries = ToCpuid(cpuid.As<Napi::Array>().Get(i));
    if (!entries) return std::nullopt;
    options.cpuid.push_back(std::move(*entries));
  }
  for (std::uint32_t i = 0; i < ranges.As<Napi::Array>().Length(); ++i) {
    const Napi::Value item = ranges.As<Napi::Array>().Get(i);
    if (!item.IsArray()) return std::nullopt;
    const auto base = ToUint64(item.As<Napi::Array>().Get(1u));
    const auto bytes = ToUint64(item.As<Napi::Array>().Get(2u));
    if (!base || !bytes) return std::nullopt;
    options.ranges.push_back({ToBool(item.As<Napi::Array>().Get(0u)), *base, *bytes});
  }
  const auto ring_entries = Below(object.Get("ringEntries"), kRingEntriesLimit);
  if (!ring_entries || (*ring_entries & (*ring_entries - 1)) != 0) return std::nullopt;
  options.ring_entries = static_cast<std::uint32_t>(*ring_entries);
  return options;
}

class KvmWrap : public Napi::ObjectWrap<KvmWrap>, public Pollable {
 public:
  static Napi::Function Constructor(Napi::Env env) {
    return DefineClass(
        env, "KvmMachine",
        {
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Resume>>("resume"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Pause>>("pause"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Stop>>("stop"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Msrs>>("msrs"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::GetVcpu>>("getVcpu"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::SetVcpu>>("setVcpu"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::GetMsrs>>("getMsrs"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::SetMsrs>>("setMsrs"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::GetVm>>("getVm"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::SetVm>>("setVm"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::GetSerial>>("getSerial"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::SetSerial>>("setSerial"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::SetIrqLine>>("setIrqLine"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::TakeAccess>>("takeAccess"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Answer>>("answer"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::TakeSerialOutput>>("takeSerialOutput"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::FeedSerial>>("feedSerial"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::TakeEnd>>("takeEnd"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::Throttle>>("throttle"),
            InstanceMethod<&KvmWrap::Open<&KvmWrap::OpenTracker>>("openTracker"),
        });
  }

  explicit KvmWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KvmWrap>(info) {
    const Napi::Env env = info.Env();
    std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
    if (memory == nullptr) return;
    auto options = info[1].IsObject() ? ToOptions(info[1].As<Napi::Object>()) : std::nullopt;
    const Napi::Value on_news =
        info[1].IsObject() ? info[1].As<Napi::Object>().Get("onNews") : env.Undefined();
    if (!options || !on_news.IsFunction()) {
      ThrowType(env, "options of a machine expected");
      return;
    }
    for (const Region& region : memory->regions()) {
      if (region.host != nullptr && region.writable) continue;
      ThrowType(env, "a machine needs mapped memory that can be written");
      return;
    }
    auto system = KvmSystem::Open();
    if (!system.ok()) {
      Throw(env, system.error());
      return;
    }
    AddonData& data = AddonData::Of(env);
    const std::uint64_t key = data.Register(this);
    options->notify = data.NotifierOf(key);
    auto machine = KvmMachine::Create(system.value(), std::move(memory), std::move(*options));
    if (!machine.ok()) {
      data.Unregister(key);
      Throw(env, machine.error());
      return;
    }
    data_ = &data;
    key_ = key;
    machine_ = std::move(machine.value());
    on_news_ = Napi::Persistent(on_news.As<Napi::Function>());
  }

  ~KvmWrap() override {
    if (data_ != nullptr) data_->Unregister(key_);
    if (machine_ != nullptr) machine_->Stop();
  }

  void OnNews(Napi::Env) override {
    if (machine_ != nullptr) on_news_.Call({});
  }

  void Teardown() override {
    if (machine_ != nullptr) machine_->Stop();
    data_ = nullptr;
  }

 private:
  // Every method but for a machine that was stopped, or never came to be.
  template <Napi::Value (KvmWrap::*method)(const Napi::CallbackInfo&)>
  Napi::Value Open(const Napi::CallbackInfo& info) {
    if (machine_ == nullptr) return ThrowType(info.Env(), "machine is stopped");
    return (this->*method)(info);
  }

  // While the guest runs nobody may collect the object, and its devices need the event loop.
  void Hold(Napi::Env env) {
    if (held_) return;
    held_ = true;
    Ref();
    AddonData::Of(env).mailbox().AddWaiter(env);
  }

  void LetGo(Napi::Env env) {
    if (!held_) return;
    held_ = false;
    AddonData::Of(env).mailbox().RemoveWaiter(env);
    Unref();
  }

  Napi::Value Resume(const Napi::CallbackInfo& info) {
    Hold(info.Env());
    machine_->Resume();
    return info.Env().Undefined();
  }

  Napi::Value Pause(const Napi::CallbackInfo& info) {
    return Leave(info, [machine = machine_] { machine->Pause(); });
  }

  Napi::Value Stop(const Napi::CallbackInfo& info) {
    // Threads, descriptors and this share of the memory are given back there, too.
    return Leave(info, [machine = std::exchange(machine_, nullptr)]() mutable {
      machine->Stop();
      machine.reset();
    });
  }

  Napi::Value Leave(const Napi::CallbackInfo& info, std::function<void()> leave) {
    auto self = std::make_shared<Napi::ObjectReference>(Napi::Persistent(Value()));
    return Task<Nothing>::Run(
        info.Env(),
        [leave = std::move(leave)](const std::atomic<bool>&) mutable {
          leave();
          return Ok();
        },
        [this, self](Napi::Env env, const Nothing&) {
          LetGo(env);
          return env.Undefined();
        });
  }

  Napi::Value Msrs(const Napi::CallbackInfo& info) {
    const auto msrs = machine_->msrs();
    return CopyToJs<std::uint32_t>(info.Env(), msrs);
  }

  Napi::Value GetVcpu(const Napi::CallbackInfo& info) {
    const auto core = CoreOf(info[0]);
    const auto part = Below(info[1], kVcpuPartCount);
    if (!core || !part) return ThrowType(info.Env(), "core and part expected");
    return ReturnBytes(info.Env(), machine_->GetVcpu(*core, static_cast<VcpuPart>(*part)));
  }

  Napi::Value SetVcpu(const Napi::CallbackInfo& info) {
    const auto core = CoreOf(info[0]);
    const auto part = Below(info[1], kVcpuPartCount);
    const auto bytes = ToBytes(info[2]);
    if (!core || !part || !bytes) return ThrowType(info.Env(), "core, part and bytes expected");
    return ReturnNothing(info.Env(),
                         machine_->SetVcpu(*core, static_cast<VcpuPart>(*part), *bytes));
  }

  Napi::Value GetMsrs(const Napi::CallbackInfo& info) {
    const auto core = CoreOf(info[0]);
    if (!core) return ThrowType(info.Env(), "core expected");
    return ReturnBytes(info.Env(), machine_->GetMsrs(*core));
  }

  Napi::Value SetMsrs(const Napi::CallbackInfo& info) {
    const auto core = CoreOf(info[0]);
    const auto bytes = ToBytes(info[1]);
    if (!core || !bytes) return ThrowType(info.Env(), "core and bytes expected");
    return ReturnNothing(info.Env(), machine_->SetMsrs(*core, *bytes));
  }

  Napi::Value GetVm(const Napi::CallbackInfo& info) {
    const auto part = Below(info[0], kVmPartCount);
    if (!part) return ThrowType(info.Env(), "part expected");
    return ReturnBytes(info.Env(), machine_->GetVm(static_cast<VmPart>(*part)));
  }

  Napi::Value SetVm(const Napi::CallbackInfo& info) {
    const auto part = Below(info[0], kVmPartCount);
    const auto bytes = ToBytes(info[1]);
    if (!part || !bytes) return ThrowType(info.Env(), "part and bytes expected");
    return ReturnNothing(info.Env(), machine_->SetVm(static_cast<VmPart>(*part), *bytes));
  }

  Napi::Value GetSerial(const Napi::CallbackInfo& info) {
    return ToJsBytes(info.Env(), machine_->GetSerial());
  }

  Napi::Value SetSerial(const Napi::CallbackInfo& info) {
    const auto bytes = ToBytes(info[0]);
    if (!bytes) return ThrowType(info.Env(), "bytes expected");
    return ReturnNothing(info.Env(), machine_->SetSerial(*bytes));
  }

  Napi::Value SetIrqLine(const Napi::CallbackInfo& info) {
    const auto irq = Below(info[0], KVM_IOAPIC_NUM_PINS);
    if (!irq) return ThrowType(info.Env(), "interrupt line expected");
    return ReturnNothing(info.Env(),
                         machine_->SetIrqLine(static_cast<std::uint32_t>(*irq), ToBool(info[1])));
  }

  Napi::Value TakeAccess(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::optional<DeviceAccess> access = machine_->TakeAccess();
    if (!access) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("core", Number(env, access->core));
    object.Set("range", Number(env, access->range));
    object.Set("offset", Number(env, access->offset));
    object.Set("bytes", Number(env, access->bytes));
    object.Set("write", Napi::Boolean::New(env, access->write));
    object.Set("value", Napi::BigInt::New(env, access->value));
    return object;
  }

  Napi::Value Answer(const Napi::CallbackInfo& info) {
    const auto core = CoreOf(info[0]);
    const auto value = ToUint64(info[1]);
    if (!core || !value) return ThrowType(info.Env(), "core and value expected");
    machine_->Answer(*core, *value);
    return info.Env().Undefined();
  }

  Napi::Value TakeSerialOutput(const Napi::CallbackInfo& info) {
    return ToJsBytes(info.Env(), machine_->TakeSerialOutput());
  }

  Napi::Value FeedSerial(const Napi::CallbackInfo& info) {
    const auto bytes = ToBytes(info[0]);
    if (!bytes) return ThrowType(info.Env(), "bytes expected");
    return Number(info.Env(), machine_->FeedSerial(*bytes));
  }

  Napi::Value TakeEnd(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::optional<VcpuEnd> end = machine_->TakeEnd();
    if (!end) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("core", Number(env, end->core));
    object.Set("reason", end->reason);
    return object;
  }

  Napi::Value Throttle(const Napi::CallbackInfo& info) {
    const double share = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
    if (!(share >= 0 && share < 1))
      return ThrowType(info.Env(), "share from 0 to below 1 expected");
    machine_->Throttle(share);
    return info.Env().Undefined();
  }

  // openTracker(whether of the rings)
  Napi::Value OpenTracker(const Napi::CallbackInfo& info) {
    auto tracker = ToBool(info[0]) ? KvmRingTracker::Open(machine_) : KvmLogTracker::Open(machine_);
    if (tracker.ok()) return TrackerWrap::Wrap(info.Env(), std::move(tracker.value()));
    Throw(info.Env(), tracker.error());
    return {};
  }

  std::optional<unsigned> CoreOf(const Napi::Value& value) const {
    const auto core = Below(value, machine_->core_count());
    return core ? std::optional<unsigned>(static_cast<unsigned>(*core)) : std::nullopt;
  }

  std::shared_ptr<KvmMachine> machine_;
  Napi::FunctionReference on_news_;
  AddonData* data_ = nullptr;
  std::uint64_t key_ = 0;
  bool held_ = false;
};

Napi::Value Support(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto system = KvmSystem::Open();
  if (!system.ok()) {
    Throw(env, system.error());
    return {};
  }
  auto cpuid = system.value()->SupportedCpuid();
  if (!cpuid.ok()) {
    Throw(env, cpuid.error());
    return {};
  }
  const std::span entries(cpuid.value());
  Napi::Object object = Napi::Object::New(env);
  object.Set("cpuid", ToJsBytes(env, {reinterpret_cast<const std::uint8_t*>(entries.data()),
                                      entries.size_bytes()}));
  object.Set("xsaveBytes", Number(env, system.value()->xsave_bytes()));
  object.Set("xcrs", Napi::Boolean::New(env, system.value()->has_xcrs()));
  object.Set("debugRegisters", Napi::Boolean::New(env, system.value()->has_debug_registers()));
  return object;
}

#else

Napi::Value Support(const Napi::CallbackInfo& info) {
  Throw(info.Env(), {.code = ErrorCode::kUnsupported, .message = "KVM machines need x86-64 Linux"});
  return {};
}

#endif  // CHKPT_HAVE_KVM

}  // namespace

void DefineKvm(Napi::Env env, Napi::Object exports) {
  exports.Set("kvmSupport", Napi::Function::New<&Support>(env, "kvmSupport"));
#ifdef CHKPT_HAVE_KVM
  exports.Set("KvmMachine", KvmWrap::Constructor(env));
#endif
}

}  // namespace chkpt::binding
