// Runs a fuzz target without libFuzzer, and always in the same way: each file of a folder, then changes of it.
//
//   TARGET FOLDER [changes of each file, else 1000]
//
// An input that ends the program, or takes a gigabyte or ten seconds, is left in the working folder as
// TARGET.last-input.
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>
#include <vector>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxInput = 64 << 10;
constexpr uint64_t kInteresting[] = {0,          1,          0x7f,      0x80,       0xff,
                                     0x7fff,     0x8000,     0xffff,    0x7fffffff, 0x80000000,
                                     0xffffffff, 1ULL << 32, INT64_MAX, 1ULL << 63, UINT64_MAX};

std::string last_path;   // where the input goes that ends the program
std::string last_input;  // it is written by a signal handler, which takes no memory

void KeepInput() {
  const int fd = ::open(last_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd >= 0 && ::write(fd, last_input.data(), last_input.size()) >= 0) ::close(fd);
}

void OnSignal(int signal) {
  KeepInput();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

// A sanitizer maps terabytes of its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

void Bound() {
  const rlimit memory = {1 << 30, 1 << 30};
  if (!kSanitized) (void)::setrlimit(RLIMIT_AS, &memory);
  for (int signal : {SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) ::signal(signal, OnSignal);
}

void Run(const std::string& input) {
  last_input = input;
  ::alarm(10);
  // Of exactly this size, so that a sanitizer sees a read behind its end.
  const std::vector<uint8_t> exact(input.begin(), input.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

class Changer {
 public:
  explicit Changer(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string Change(std::string text) {
    for (size_t times = 1 + Below(4); times > 0; times--) ChangeOnce(&text);
    if (text.size() > kMaxInput) text.resize(kMaxInput);
    return text;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void ChangeOnce(std::string* text) {
    const size_t at = Below(text->size());
    const size_t left = text->size() - at;
    switch (Below(8)) {
      case 0:
        if (left != 0) (*text)[at] = static_cast<char>((*text)[at] ^ 1 << Below(8));
        return;
      case 1:
        if (left != 0) (*text)[at] = static_cast<char>(random_());
        return;
      case 2: {  // a number that is at an edge
        const uint64_t number = kInteresting[Below(std::size(kInteresting))];
        std::memcpy(text->data() + at, &number, std::min(left, size_t{1} << Below(4)));
        return;
      }
      case 3:
        text->erase(at, 1 + Below(std::min<size_t>(left, 32)));
        return;
      case 4:
        text->insert(at, 1 + Below(32), static_cast<char>(random_()));
        return;
      case 5: {  // a piece once more
        const std::string piece = text->substr(at, 1 + Below(64));
        text->insert(Below(text->size() + 1), piece);
        return;
      }
      case 6: {  // a piece of another seed
        const std::string& other = seeds_[Below(seeds_.size())];
        text->replace(at, Below(std::min<size_t>(left, 64)), other.substr(Below(other.size()), 1 + Below(64)));
        return;
      }
      default:
        text->resize(at);  // cut short
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937_64 random_{20240229};  // the same changes at each run, of each platform
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER [changes a file]\n";
    return 2;
  }
  const size_t changes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000;
  last_path = replica::BaseName(argv[0]) + ".last-input";
  last_input.reserve(2 * kMaxInput);
  Bound();

  auto names = replica::ListFiles(argv[1]);
  std::vector<std::string> seeds;
  if (names.ok())
    for (const std::string& name : *names)
      if (auto seed = replica::ReadFile(std::string(argv[1]) + "/" + name, kMaxInput); seed.ok())
        seeds.push_back(*seed);
  if (seeds.empty() || seeds.size() != names->size()) {
    std::cerr << argv[1] << ": no seeds, or some that cannot be read\n";
    return 1;
  }
  for (size_t i = 0; i < seeds.size(); i++) {
    replica::fuzz::accepted = false;
    Run(seeds[i]);
    if ((*names)[i].rfind("valid", 0) == 0 && !replica::fuzz::accepted) {
      std::cerr << argv[1] << "/" << (*names)[i] << ": was valid, and is refused\n";
      return 1;
    }
  }
  Changer changer(seeds);
  size_t taken = 0;
  for (const std::string& seed : seeds) {
    for (size_t n = 0; n < changes; n++) {
      replica::fuzz::accepted = false;
      Run(changer.Change(seed));
      taken += replica::fuzz::accepted ? 1 : 0;
    }
  }
  std::cout << seeds.size() << " seeds, " << seeds.size() * changes << " changed inputs, " << taken
            << " of them taken\n";
  return 0;
}
