// Structs of KVM's binary interface that end in an array whose length they say, and the numbers of
// the ioctls that take them.
//
// <linux/kvm.h> has them too, but some versions of it give them four bytes more in C++ than in C
// (their empty struct in front of the array has a size here), and with that other offsets and other
// ioctl numbers.
#pragma once

#include "core/kvm/kvm_system.h"

#ifdef CHKPT_HAVE_KVM

#include <linux/ioctl.h>

#include <cstring>

namespace chkpt {

// A count, padding up to kHeaderBytes, and as many elements.
template <typename Element, std::size_t kHeaderBytes>
class KernelList {
 public:
  explicit KernelList(std::uint32_t count)
      : words_((kHeaderBytes + std::size_t{count} * sizeof(Element)) / sizeof(std::uint64_t) + 1) {
    std::memcpy(words_.data(), &count, sizeof count);
  }

  void* get() { return words_.data(); }
  // As the kernel has left it: never more than was asked for.
  std::uint32_t count() const {
    std::uint32_t count = 0;
    std::memcpy(&count, words_.data(), sizeof count);
    return count;
  }
  Element at(std::size_t index) const {
    Element element;
    std::memcpy(&element, Place(index), sizeof element);
    return element;
  }
  void set(std::size_t index, const Element& element) {
    std::memcpy(const_cast<std::uint8_t*>(Place(index)), &element, sizeof element);
  }
  std::vector<Element> ToVector() const {
    std::vector<Element> elements(count());
    if (!elements.empty())
      std::memcpy(elements.data(), Place(0), elements.size() * sizeof(Element));
    return elements;
  }

 private:
  const std::uint8_t* Place(std::size_t index) const {
    return reinterpret_cast<const std::uint8_t*>(words_.data()) + kHeaderBytes +
           index * sizeof(Element);
  }

  std::vector<std::uint64_t> words_;
};

using CpuidList = KernelList<kvm_cpuid_entry2, 8>;  // kvm_cpuid2
using MsrList = KernelList<kvm_msr_entry, 8>;       // kvm_msrs
using MsrIndexList = KernelList<std::uint32_t, 4>;  // kvm_msr_list
inline constexpr std::size_t kXsaveBytes = 4096;    // kvm_xsave without what KVM_GET_XSAVE2 adds

inline constexpr unsigned long kGetMsrIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, kXsaveBytes);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, kXsaveBytes);
inline constexpr unsigned long kGetXsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, kXsaveBytes);

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM
