// The claim at a replica's URL: which replica folder began the history there, or went on with it last. Text
// (docs/format.md), written by us or by anybody. Any thread.
#ifndef LIBREPLICA_UPLOADER_CLAIM_H_
#define LIBREPLICA_UPLOADER_CLAIM_H_

#include <cstdint>
#include <string>

namespace replica {

struct Claim {
  bool any = false;
  uint64_t identity = 0;  // StateFile::FolderIdentity; this and the next two are only in a claim that is whole
  std::string path;       // of the database
  std::string host;
  std::string text;  // for people: path and host, or whatever lies there; without control characters
};

std::string FormatClaim(uint64_t identity, const std::string& path, const std::string& host);
// Of an object that is there. What is no claim of ours still claims the place: `text` shows it.
Claim ParseClaim(const std::string& bytes);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_CLAIM_H_
