-- How an ApiKey is, for Argo CD: what its condition Ready says, in Ready's words. docs/gitops.md has the table and the reasons.
local health = { status = "Progressing", message = "no operator has seen this key yet" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "the key is being deleted"
  return health
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local stalled = false
local remarks = ""
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    end
  elseif condition.type == "Stalled" then
    stalled = condition.status == "True"
  elseif condition.status == "True" then
    -- Expiring, OutOfPolicy, ClockSkewed: the key works, and somebody should know.
    remarks = remarks .. "; " .. condition.message
  end
end
if stalled then
  health.status = "Degraded"
elseif health.status == "Healthy" then
  health.message = health.message .. remarks
end
return health
