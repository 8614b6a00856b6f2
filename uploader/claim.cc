#include "uploader/claim.h"

#include "base/bytes.h"

namespace replica {
namespace {
constexpr size_t kDigits = 16;
constexpr char kBetween[] = " on ";
}  // namespace

std::string FormatClaim(uint64_t identity, const std::string& path, const std::string& host) {
  return Hex16(identity) + " " + path + kBetween + host + "\n";
}

Claim ParseClaim(const std::string& bytes) {
  Claim claim;
  claim.any = true;
  const size_t on = bytes.rfind(kBetween);
  if (on != std::string::npos && on > kDigits + 1 && bytes[kDigits] == ' ' &&
      ParseHex16(bytes.substr(0, kDigits), &claim.identity)) {
    claim.path = bytes.substr(kDigits + 1, on - kDigits - 1);
    claim.host = bytes.substr(on + sizeof kBetween - 1);
    if (!claim.host.empty() && claim.host.back() == '\n') claim.host.pop_back();
    claim.text = claim.path + kBetween + claim.host;
  } else {
    claim.text = bytes;
  }
  for (char& c : claim.text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  return claim;
}

}  // namespace replica
