// OpenSSL's low-level functions: they allocate nothing and fetch nothing, where EVP crashes in its first fetch when
// there is no memory (3.0).
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/sha256.h"

#include <openssl/md5.h>

#include <algorithm>

namespace replica {

Sha256::Sha256() {
  (void)SHA256_Init(&context_);  // these cannot fail
}

void Sha256::Update(std::string_view bytes) {
  (void)SHA256_Update(&context_, bytes.data(), bytes.size());
}

Sha256::Digest Sha256::Finish() const {
  SHA256_CTX copy = context_;
  Digest digest{};
  (void)SHA256_Final(digest.data(), &copy);
  return digest;
}

Sha256::Digest Sha256::Of(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

// RFC 2104. OpenSSL's HMAC() fetches.
Sha256::Digest HmacSha256(std::string_view key, std::string_view bytes) {
  std::array<char, SHA256_CBLOCK> block{};
  if (key.size() > block.size()) {
    const Sha256::Digest digest = Sha256::Of(key);
    std::copy(digest.begin(), digest.end(), block.begin());
  } else {
    std::copy(key.begin(), key.end(), block.begin());
  }
  const std::string_view pad(block.data(), block.size());
  Sha256 inner;
  for (char& c : block) c ^= 0x36;
  inner.Update(pad);
  inner.Update(bytes);
  const Sha256::Digest digest = inner.Finish();
  Sha256 outer;
  for (char& c : block) c ^= 0x36 ^ 0x5c;
  outer.Update(pad);
  outer.Update({reinterpret_cast<const char*>(digest.data()), digest.size()});
  return outer.Finish();
}

std::array<uint8_t, 16> Md5Of(std::string_view bytes) {
  std::array<uint8_t, 16> digest{};
  (void)MD5(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

}  // namespace replica
