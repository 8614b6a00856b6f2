class Job < QueueRecord
end
