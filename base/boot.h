// Which start of the machine this is.
#ifndef LIBREPLICA_BASE_BOOT_H_
#define LIBREPLICA_BASE_BOOT_H_

#include <cstdint>

namespace replica {

// A hash of the kernel's boot id (random(4)): another one after each start of the machine, the same in all containers.
// Never 0. Read once.
uint64_t BootHash();

}  // namespace replica

#endif  // LIBREPLICA_BASE_BOOT_H_
