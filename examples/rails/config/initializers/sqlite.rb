# What Rails 7.1 and later do by themselves: WAL, which replication needs, and waiting for a lock without holding up the
# other threads of the worker (sqlite3's own busy timeout sleeps with Ruby's lock held).
ActiveSupport.on_load(:active_record_sqlite3adapter) do
  prepend(Module.new do
    private

    def configure_connection
      super
      patience = @config.fetch(:timeout, 5000).to_i / 1000.0
      @connection.busy_handler do |count|
        sleep 0.001
        count * 0.001 < patience
      end
      execute("PRAGMA journal_mode = WAL", "SCHEMA")
      execute("PRAGMA synchronous = NORMAL", "SCHEMA")
    end
  end)
end
