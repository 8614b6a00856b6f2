#include "uploader/s3_listing.h"

#include <algorithm>
#include <pugixml.hpp>

#include "base/bytes.h"

namespace replica {
namespace {
constexpr int kMaxBarrenPages = 16;
constexpr size_t kMaxKey = 1024;  // S3's own limit
constexpr size_t kMaxListed = 20000000;
constexpr uint64_t kMaxListedBytes = kMaxListed * 64;  // of keys; ours are shorter
}  // namespace

Status S3Lister::Take(std::string_view body) {
  pugi::xml_document xml;
  pugi::xml_node result;
  if (xml.load_buffer(body.data(), body.size())) result = xml.child("ListBucketResult");
  if (!result) return Corrupt("the answer is not S3's; check REPLICA_ENDPOINT");
  std::string first;
  std::string greatest = last_;
  auto see = [&](const std::string& key) {
    if (first.empty() || key < first) first = key;
    greatest = std::max(greatest, key);
  };
  for (pugi::xml_node node : result.children("Contents")) {
    const std::string key = node.child_value("Key");
    if (key.size() > kMaxKey) return Corrupt("a key is longer than S3 allows");
    if (key.rfind(root_, 0) != 0) return Corrupt("the answer names a key outside the prefix");
    const auto size = ParseNumber(node.child_value("Size"));
    if (!size) return Corrupt("the answer gives no size of " + key.substr(root_.size()));
    see(key);
    listing_.objects.push_back({key.substr(root_.size()), *size});
    bytes_ += key.size() - root_.size();
  }
  for (pugi::xml_node node : result.children("CommonPrefixes")) {
    const std::string key = node.child_value("Prefix");
    if (key.size() > kMaxKey) return Corrupt("a folder's name is longer than S3 allows");
    if (key.rfind(root_, 0) != 0) return Corrupt("the answer names a folder outside the prefix");
    // What is no folder in there is no entry either: pages of nothing else must not count as getting on.
    if (key.size() == root_.size() || key.back() != '/') continue;
    see(key);
    listing_.folders.push_back(key.substr(root_.size()));
    bytes_ += key.size() - root_.size();
  }
  done_ = std::string(result.child_value("IsTruncated")) != "true";
  if (done_) return Ok();
  const std::string next = result.child_value("NextContinuationToken");
  if (next.empty() || next == token_) return Corrupt("the store gave no way to go on listing");
  barren_ = first.empty() ? barren_ + 1 : 0;
  if (barren_ > kMaxBarrenPages || (!first.empty() && first <= last_))
    return Corrupt("the store lists without getting on; this is not S3's order");
  if (listing_.objects.size() + listing_.folders.size() > kMaxListed)
    return Corrupt("more than " + std::to_string(kMaxListed) + " entries");
  if (bytes_ > kMaxListedBytes)
    return Corrupt("the names of its entries have more than " + std::to_string(kMaxListedBytes) + " bytes");
  last_ = std::move(greatest);
  token_ = next;
  return Ok();
}

Listing S3Lister::Finish() {
  auto& folders = listing_.folders;
  auto& objects = listing_.objects;
  std::sort(folders.begin(), folders.end());
  std::stable_sort(objects.begin(), objects.end(),
                   [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  // A key is one object, however often it is listed: readers count them, and apply each.
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  objects.erase(std::unique(objects.begin(), objects.end(),
                            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key == b.key; }),
                objects.end());
  return std::move(listing_);
}

}  // namespace replica
