// The manual page and the shell completions, made from the tree of commands, so that they know every option there is.
#include <sstream>

#include "cli/app.h"

namespace replica {
namespace {

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  std::vector<const CLI::App*> out;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* c) { return !c->get_group().empty(); }))
    out.push_back(command);
  return out;
}

std::vector<const CLI::Option*> Options(const CLI::App& app) {
  std::vector<const CLI::Option*> out;
  for (const CLI::Option* option : app.get_options())
    if (!option->get_group().empty()) out.push_back(option);
  return out;
}

std::string Roff(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '-') {
      out += "\\-";
    } else if (c == '\\') {
      out += "\\e";
    } else {
      out += c;
    }
  }
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

bool TakesValue(const CLI::Option& option) {
  return option.get_items_expected_max() > 0 && option.get_type_size_max() > 0;
}

void WriteOptions(const CLI::App& app, std::ostringstream* out) {
  for (const CLI::Option* option : Options(app)) {
    std::string names;
    for (const std::string& name : option->get_snames()) names += (names.empty() ? "" : ", ") + ("\\-" + name);
    for (const std::string& name : option->get_lnames()) names += (names.empty() ? "" : ", ") + ("\\-\\-" + Roff(name));
    *out << ".TP\n";
    if (names.empty()) {
      *out << ".I " << Roff(option->get_name()) << "\n";
    } else {
      *out << "\\fB" << names << "\\fR" << (TakesValue(*option) ? " \\fIvalue\\fR" : "") << "\n";
    }
    *out << Roff(option->get_description());
    if (!option->get_default_str().empty()) *out << " (default: " << Roff(option->get_default_str()) << ")";
    *out << ".\n";
  }
}

constexpr char kManualEnd[] = R"(.SH EXIT STATUS
.TP
.B 0
Done, and all is well.
.TP
.B 1
Done, and the answer is no: a replica is not equal to its database, a database needs attention, a check failed, a
setting is missing, an object is damaged, another writer is in the way.
.TP
.B 2
Wrong arguments or configuration, or a file, database or replica that is not there. Nothing was changed.
.TP
.B 3
The store or the system refused or did not answer.
.TP
.B 4
Not within the time given.
.TP
.B 130
Interrupted by a signal.
.PP
.B replicate \-\-exec
ends with the exit status of its command.
.SH ENVIRONMENT
.TP
.B REPLICA_CONFIG, LITESTREAM_CONFIG
The configuration file; "off": none.
.TP
.B NO_COLOR
Print no colours.
.PP
Every setting has a variable too:
.B replica config \-\-all
lists them.
.SH FILES
.TP
.I replica.yml, litestream.yml, config/replica.yml, config/litestream.yml, /etc/replica.yml, /etc/litestream.yml
The configuration file is the first of these that is there, unless a variable names one.
.TP
.I database\-replica/
The replica folder beside each database.
.SH NOTES
As root, a command acts as the owner of the database it works on, so that the files beside it belong to who uses it.
.SH SEE ALSO
.BR sqlite3 (1)
)";

void WriteBash(const CLI::App& app, std::ostringstream* out) {
  auto words = [](const CLI::App& a) {
    std::string text;
    for (const CLI::Option* option : Options(a)) {
      for (const std::string& name : option->get_lnames()) text += " --" + name;
      for (const std::string& name : option->get_snames()) text += " -" + name;
    }
    return text;
  };
  *out << "# bash completion for replica\n_replica() {\n  local word=${COMP_WORDS[COMP_CWORD]} command= w\n"
          "  for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case $w in\n      -*) ;;\n      *) command=$w; "
          "break ;;\n"
          "    esac\n  done\n  local options=\""
       << words(app).substr(1) << "\"\n  case $command in\n    '') COMPREPLY=($(compgen -W \"$options";
  for (const CLI::App* command : Commands(app)) *out << " " << command->get_name();
  *out << "\" -- \"$word\")); return ;;\n";
  for (const CLI::App* command : Commands(app))
    *out << "    " << command->get_name() << ") options=\"$options" << words(*command) << "\" ;;\n";
  *out << "  esac\n  case ${COMP_WORDS[COMP_CWORD-1]} in\n"
          "    --depth) COMPREPLY=($(compgen -W 'quick full objects' -- \"$word\")); return ;;\n"
          "    --color) COMPREPLY=($(compgen -W 'auto always never' -- \"$word\")); return ;;\n"
          "    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\")); return ;;\n  esac\n"
          "  if [[ $word == -* ]]; then\n    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n  else\n"
          "    COMPREPLY=($(compgen -f -- \"$word\"))\n  fi\n}\ncomplete -o filenames -F _replica replica\n";
}

// Within single quotes, for zsh and fish.
std::string Quoted(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '\'' ? std::string("’") : std::string(1, c);
  return out;
}

void WriteZsh(const CLI::App& app, std::ostringstream* out) {
  auto escaped = [](const std::string& text) {
    std::string result;
    for (char c : Quoted(text)) result += c == '[' || c == ']' || c == ':' ? std::string("\\") + c : std::string(1, c);
    return result;
  };
  auto write = [&](const CLI::App& a) {
    for (const CLI::Option* option : Options(a)) {
      const char* value = TakesValue(*option) ? ":value:_files" : "";
      for (const std::string& name : option->get_lnames())
        *out << "    '--" << name << "[" << escaped(option->get_description()) << "]" << value << "'\n";
    }
  };
  *out << "#compdef replica\n_replica() {\n  local -a options commands\n  options=(\n";
  write(app);
  *out << "  )\n  commands=(\n";
  for (const CLI::App* command : Commands(app))
    *out << "    '" << command->get_name() << ":" << escaped(command->get_description()) << "'\n";
  *out << "  )\n  if (( CURRENT == 2 )); then\n    _describe 'command' commands\n    _arguments $options\n    return\n "
          " fi\n"
          "  case $words[2] in\n";
  for (const CLI::App* command : Commands(app)) {
    *out << "  " << command->get_name() << ") options+=(\n";
    write(*command);
    *out << "  ) ;;\n";
  }
  *out << "  esac\n  _arguments $options '*:database:_files'\n}\n_replica \"$@\"\n";
}

void WriteFish(const CLI::App& app, std::ostringstream* out) {
  auto write = [&](const CLI::App& a, const std::string& condition) {
    for (const CLI::Option* option : Options(a)) {
      if (option->get_lnames().empty()) continue;
      *out << "complete -c replica" << condition;
      for (const std::string& name : option->get_lnames()) *out << " -l " << name;
      for (const std::string& name : option->get_snames()) *out << " -s " << name;
      *out << (TakesValue(*option) ? " -r" : "") << " -d '" << Quoted(option->get_description()) << "'\n";
    }
  };
  *out << "# fish completion for replica\n";
  write(app, "");
  for (const CLI::App* command : Commands(app)) {
    *out << "complete -c replica -n __fish_use_subcommand -f -a " << command->get_name() << " -d '"
         << Quoted(command->get_description()) << "'\n";
    write(*command, " -n '__fish_seen_subcommand_from " + command->get_name() + "'");
  }
}

}  // namespace

std::string ManualPage(const CLI::App& app) {
  std::ostringstream out;
  out << ".TH REPLICA 1 \"\" \"libreplica " LIBREPLICA_VERSION "\" \"User Commands\"\n.SH NAME\n"
      << "replica \\- keep live, verifiable copies of SQLite databases in object storage\n.SH SYNOPSIS\n"
      << ".B replica\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]\n.SH DESCRIPTION\n"
      << "The SQLite extension libreplica uploads every commit of a database to a replica in S3 or in a folder. This "
         "command\nlooks after it from outside: it shows what is replicated, proves it, restores it, and can do the "
         "uploading in a\nprocess of its own.\n.SH OPTIONS\nThey may stand before or behind the command.\n";
  WriteOptions(app, &out);
  out << ".SH COMMANDS\n";
  for (const CLI::App* command : Commands(app)) {
    out << ".SS replica " << Roff(command->get_name());
    for (const CLI::Option* option : Options(*command))
      if (option->get_snames().empty() && option->get_lnames().empty())
        out << (option->get_required() ? " " : " [") << Roff(option->get_name())
            << (option->get_items_expected_max() > 1 ? "..." : "") << (option->get_required() ? "" : "]");
    out << "\n" << Roff(command->get_description()) << ".\n";
    WriteOptions(*command, &out);
  }
  out << kManualEnd;
  return out.str();
}

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  std::ostringstream out;
  if (shell == "bash") WriteBash(app, &out);
  if (shell == "zsh") WriteZsh(app, &out);
  if (shell == "fish") WriteFish(app, &out);
  return out.str();
}

}  // namespace replica
