// Chooses the page kernels of this CPU.
#include "core/scan/page_kernels.h"

namespace chkpt {

const PageKernels& BestPageKernels() {
  static const PageKernels& best = Avx2PageKernels() ? *Avx2PageKernels() : PortablePageKernels();
  return best;
}

}  // namespace chkpt
