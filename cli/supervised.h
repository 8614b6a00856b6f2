// The uploader process that an application's extension starts (uploader=process).
#ifndef LIBREPLICA_CLI_SUPERVISED_H_
#define LIBREPLICA_CLI_SUPERVISED_H_

namespace replica {

// Uploads what it is told over the socket on stdin (ext/uploader_process.h has the protocol) until that is closed.
int RunSupervised();

}  // namespace replica

#endif  // LIBREPLICA_CLI_SUPERVISED_H_
