// The device side of KvmMachine: accesses to ports and MMIO, the serial port, answers of the owner.
#include <cstring>
#include <utility>

#include "core/kvm/kvm_machine.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {
namespace {

// A guest that sends faster than anybody reads waits at this many bytes.
constexpr std::size_t kSerialOutputBytesMax = 1u << 20;

}  // namespace

void KvmMachine::ServePorts(unsigned core) {
  const Vcpu::Ports ports = vcpus_[core].vcpu->ports();
  for (std::uint32_t i = 0; i < ports.count; ++i) {
    Serve(core, false, ports.port, ports.size, ports.write, ports.data + i * ports.size);
  }
}

void KvmMachine::ServeMmio(unsigned core) {
  const Vcpu::Mmio mmio = vcpus_[core].vcpu->mmio();
  Serve(core, true, mmio.address, mmio.size, mmio.write, mmio.data);
}

void KvmMachine::Serve(unsigned core, bool mmio, std::uint64_t address, std::uint8_t bytes,
                       bool write, std::uint8_t* data) {
  if (!mmio && ServeSerial(address, write, data)) {
    if (!write && bytes > 1) std::memset(data + 1, 0xff, bytes - 1u);
    return;
  }
  for (std::size_t i = 0; i < options_.ranges.size(); ++i) {
    const DeviceRange& range = options_.ranges[i];
    if (range.mmio != mmio || address < range.base || address - range.base >= range.bytes) continue;
    DeviceAccess access = {.core = core,
                           .range = i,
                           .offset = address - range.base,
                           .bytes = bytes,
                           .write = write,
                           .value = 0};
    if (write) std::memcpy(&access.value, data, bytes);
    const std::uint64_t answer = AskOwner(access);
    if (!write) std::memcpy(data, &answer, bytes);
    return;
  }
  // Nobody there: a bus that floats.
  if (!write) std::memset(data, 0xff, bytes);
}

std::uint64_t KvmMachine::AskOwner(const DeviceAccess& access) {
  Processor& processor = vcpus_[access.core];
  std::unique_lock lock(mutex_);
  processor.access = access;
  processor.pending = Pending::kPosted;
  lock.unlock();
  options_.notify();
  lock.lock();
  changed_.wait(lock, [&] { return processor.pending == Pending::kAnswered || stopping_; });
  const bool answered = processor.pending == Pending::kAnswered;
  processor.pending = Pending::kNone;
  return answered ? processor.answer : ~std::uint64_t{0};
}

std::optional<DeviceAccess> KvmMachine::TakeAccess() {
  const std::lock_guard lock(mutex_);
  for (Processor& processor : vcpus_) {
    if (processor.pending != Pending::kPosted) continue;
    processor.pending = Pending::kTaken;
    return processor.access;
  }
  return std::nullopt;
}

void KvmMachine::Answer(unsigned core, std::uint64_t value) {
  const std::lock_guard lock(mutex_);
  Processor& processor = vcpus_[core];
  if (processor.pending != Pending::kTaken) return;
  processor.answer = value;
  processor.pending = Pending::kAnswered;
  changed_.notify_all();
}

std::optional<VcpuEnd> KvmMachine::TakeEnd() {
  const std::lock_guard lock(mutex_);
  for (unsigned core = 0; core < core_count(); ++core) {
    Processor& processor = vcpus_[core];
    if (!processor.ended || processor.end_taken) continue;
    processor.end_taken = true;
    return VcpuEnd{core, processor.vcpu->ended()};
  }
  return std::nullopt;
}

bool KvmMachine::ServeSerial(std::uint64_t port, bool write, std::uint8_t* data) {
  if (port < Uart16550::kPort || port >= Uart16550::kPort + Uart16550::kPortCount) return false;
  const auto offset = static_cast<std::uint16_t>(port - Uart16550::kPort);
  bool news = false;
  {
    std::unique_lock lock(mutex_);
    if (write) {
      const std::optional<std::uint8_t> sent = uart_.Write(offset, *data);
      if (sent) {
        changed_.wait(
            lock, [this] { return serial_output_.size() < kSerialOutputBytesMax || stopping_; });
        news = serial_output_.empty();
        serial_output_.push_back(*sent);
      }
    } else {
      const std::uint8_t before = uart_.state().received_count;
      *data = uart_.Read(offset);
      news = before > 0 && uart_.state().received_count == 0;
    }
    UpdateSerialLine();
  }
  if (news) options_.notify();
  return true;
}

// REQUIRES: mutex_ is held.
void KvmMachine::UpdateSerialLine() {
  const bool line = uart_.interrupt();
  if (line == serial_line_) return;
  serial_line_ = line;
  // The line exists in every machine with the kernel's interrupt controllers.
  const Status status = SetIrqLine(Uart16550::kIrq, line);
  static_cast<void>(status);
}

std::vector<std::uint8_t> KvmMachine::TakeSerialOutput() {
  const std::lock_guard lock(mutex_);
  if (serial_output_.size() >= kSerialOutputBytesMax) changed_.notify_all();
  return std::exchange(serial_output_, {});
}

std::size_t KvmMachine::FeedSerial(std::span<const std::uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = uart_.Feed(bytes);
  UpdateSerialLine();
  return count;
}

StateBytes KvmMachine::GetSerial() const {
  const std::lock_guard lock(mutex_);
  StateBytes bytes(sizeof(UartState));
  std::memcpy(bytes.data(), &uart_.state(), bytes.size());
  return bytes;
}

Status KvmMachine::SetSerial(std::span<const std::uint8_t> bytes) {
  Status still = CheckStill();
  if (!still.ok()) return still;
  UartState state;
  if (bytes.size() != sizeof state) {
    return Error{.code = ErrorCode::kFormat, .message = "serial port: state of another size"};
  }
  std::memcpy(&state, bytes.data(), sizeof state);
  const std::lock_guard lock(mutex_);
  if (!uart_.set_state(state)) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "serial port: more bytes received than it holds"};
  }
  // The interrupt controllers are loaded with their lines as they were.
  serial_line_ = uart_.interrupt();
  return Ok();
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM
