# The replica command with this app's configuration. A task fails when the command does. None loads the app: they work
# when a database is lost, and while the app runs.
module ReplicaTasks
  def self.run(*arguments)
    command = ENV.fetch("REPLICA_COMMAND", "replica")
    config = ENV.fetch("REPLICA_CONFIG", Rails.root.join("config/replica.yml").to_s)
    done = system({ "REPLICA_COMMAND" => nil }, command, "--config", config, *arguments) # it is no setting of libreplica
    abort "#{command} cannot be run: install libreplica, or set REPLICA_COMMAND to its path" if done.nil?
    abort "replica #{arguments.first} failed: #{$?}" unless done
  end
end

namespace :replica do
  desc "List the databases and their replicas"
  task(:databases) { ReplicaTasks.run "databases" }

  desc "Show state and lag; fails if a database needs attention"
  task(:status) { ReplicaTasks.run "status" }

  desc "Restore a database to `target` (latest, a TXID or a time) into `output` (its own path). Never overwrites"
  task :restore, [:database, :target, :output] do |_, given|
    database = given[:database] or abort "usage: rake 'replica:restore[/data/production.sqlite3,latest,copy.sqlite3]'"
    output = given[:output] ? ["--output", given[:output]] : []
    ReplicaTasks.run "restore", database, "--to", given[:target] || "latest", *output
  end

  desc "Prove that the replicas equal the databases: quick, full or objects"
  task :verify, [:depth] do |_, given|
    ReplicaTasks.run "verify", "--depth", given[:depth] || "quick"
  end
end
